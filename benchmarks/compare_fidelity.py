"""Whether `vggnet compare` can be believed: its overhead, its agreement with itself and `train`.

    python benchmarks/compare_fidelity.py

Three questions, each answered by a ratio that should be 1:

- the loop as `compare` times it, against the bare forward, backward and optimizer of as many
  steps, interleaved, `--rounds` times;
- the same setting measured by two runs of the command, one after the other, and whether the
  ranges that they state overlap;
- the rate that `compare` states, against that of the steps of `vggnet train` by its own clock,
  in a process of its own, in the same run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from training_speed import bare_steps, timed

from vggnet.compare.measure import Timer, Training, time_fit
from vggnet.compare.result import Result, Row, Setting
from vggnet.config import Config
from vggnet.data.storage import load_dataset
from vggnet.engine.device import usable_cores
from vggnet.engine.environment import describe_environment
from vggnet.engine.session import Session
from vggnet.recipes import resolve_config
from vggnet.run import fit_to_data


def measure_overhead(config: Config, steps: int, rounds: int) -> list[float]:
    """Return, for each round, what a step costs in `compare` over the bare loop's, as a share."""
    dataset = load_dataset("mnist")
    setting = Setting(
        device="cpu",
        precision="fp32",
        global_batch_size=config.train.global_batch_size,
        threads=usable_cores(),
        kernels="torch",
    )
    training = Training(setting, fit_to_data(config, dataset, Session()), dataset, steps)
    overheads = []
    with training.computing():
        bare = bare_steps(*training.begin(), steps)
        bare()
        for _ in range(rounds):
            state, batches = training.begin()
            whole, _ = time_fit(state, batches, Timer(), lambda state: None)
            overheads.append(whole / timed(bare) - 1)
    return overheads


def measure_twice(steps: int, repeats: int) -> list[Result]:
    """Run the command twice."""
    results = []
    for _ in range(2):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "vggnet", "compare", "--json", "--sweep", "none"]
            command += ["--steps", str(steps), "--repeats", str(repeats), "--output", folder]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
        results.append(Result.model_validate_json(done.stdout))
    return results


@dataclass(frozen=True)
class Pair:
    """One setting, measured by two runs of the command."""

    setting: str
    first: tuple[float, ...]
    second: tuple[float, ...]
    train: tuple[float, ...]
    """Rate of `vggnet train` as a multiple of the one stated, for each run that has it."""

    @property
    def ratio(self) -> float:
        """The second median over the first."""
        return statistics.median(self.second) / statistics.median(self.first)

    @property
    def overlap(self) -> bool:
        """Whether the ranges that both state have a value in common."""
        return max(min(self.first), min(self.second)) <= min(max(self.first), max(self.second))


def pair_rows(first: Result, second: Result) -> list[Pair]:
    """Set both measurements of each setting beside each other."""
    again = {row.setting: row for row in second.rows}
    pairs = []
    for row in first.rows:
        if other := again.get(row.setting):
            rates = tuple(rate for one in (row, other) if (rate := rate_of_train(one)))
            pairs.append(Pair(row.setting.label, row.seconds, other.seconds, rates))
    return pairs


def rate_of_train(row: Row) -> float | None:
    """Return the rate of `vggnet train` as a multiple of the rate that a row states."""
    return statistics.median(row.seconds) / row.cold.training_seconds if row.cold else None


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, help="stem of the .md and .json to write")
    options = parser.parse_args()
    overheads = measure_overhead(resolve_config(), options.steps, options.rounds)
    pairs = pair_rows(*measure_twice(options.steps, options.repeats))
    found = describe_environment()
    text = f"""# Fidelity of `vggnet compare`

- machine: {found["cpu"]}, {found["cpu_isa"]}, {found["usable_cores"]} cores; torch {found["torch"]}
- command: `python benchmarks/compare_fidelity.py`
- overhead over the bare loop, {options.rounds} interleaved rounds of {options.steps} steps: median
  {_percent(statistics.median(overheads))} ({_percent(min(overheads))} to \
{_percent(max(overheads))})

Two runs, {options.repeats} repeats of {options.steps} steps each; seconds, median (least to most).

| setting | first run | second run | ratio | ranges overlap | rate of `train` over it, each run |
|---|---|---|---|---|---|
"""
    for pair in pairs:
        rates = ", ".join(f"{rate:.3f}" for rate in pair.train) or "–"
        text += (
            f"| {pair.setting} | {_spread(pair.first)} | {_spread(pair.second)} "
            f"| {pair.ratio:.3f} | {'yes' if pair.overlap else 'no'} | {rates} |\n"
        )
    print(text)
    if options.output:
        options.output.with_suffix(".md").write_text(text)
        record = {
            "environment": found,
            "overheads": overheads,
            "pairs": [asdict(one) for one in pairs],
        }
        options.output.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")


def _percent(share: float) -> str:
    return f"{100 * share:+.1f} %"


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    torch.set_num_threads(usable_cores())
    main()
