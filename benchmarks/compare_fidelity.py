"""Whether `vggnet compare` can be believed: its overhead, its agreement with itself and `train`.

    python benchmarks/compare_fidelity.py

Three questions, each answered by a ratio that should be 1:

- the loop as `compare` times it, against the bare forward, backward and optimizer of as many
  steps, interleaved, `--rounds` times;
- the same setting measured by two runs of the command, one after the other, and whether the
  ranges that they state overlap;
- the time that `compare` states, against that of the same steps of `vggnet train` by its own
  clock, each time in a process of its own, `--trainings` times, the settings in turns.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from training_speed import bare_steps, timed

from vggnet.compare.cold import train_cold
from vggnet.compare.measure import Timer, Training, time_fit
from vggnet.compare.result import Result, Setting
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


def train_in_turns(result: Result, times: int) -> dict[Setting, tuple[float, ...]]:
    """Run `vggnet train` for the steps of each row, in turns; return its seconds of training."""
    dataset = load_dataset("mnist")
    seconds: dict[Setting, tuple[float, ...]] = {}
    for _ in range(times):
        for row in result.rows:
            training = Training(row.setting, result.config, dataset, row.steps)
            found = train_cold(training.settings(), Timer()).training_seconds
            seconds[row.setting] = (*seconds.get(row.setting, ()), found)
    return seconds


@dataclass(frozen=True)
class Fidelity:
    """One setting, measured by two runs of the command and by `vggnet train`; seconds."""

    setting: str
    first: tuple[float, ...]
    second: tuple[float, ...]
    train: tuple[float, ...]

    @property
    def again(self) -> float:
        """The second run's median over the first's."""
        return statistics.median(self.second) / statistics.median(self.first)

    @property
    def overlap(self) -> bool:
        """Whether the ranges that both runs state have a value in common."""
        return max(min(self.first), min(self.second)) <= min(max(self.first), max(self.second))

    @property
    def rate_of_train(self) -> float:
        """Images a second of `vggnet train` over those that both runs state, by medians."""
        return statistics.median(self.first + self.second) / statistics.median(self.train)


def compare_twice(steps: int, repeats: int, trainings: int) -> list[Fidelity]:
    """Measure each setting that both runs of the command chose."""
    first, second = measure_twice(steps, repeats)
    trained = train_in_turns(first, trainings)
    again = {row.setting: row.seconds for row in second.rows}
    return [
        Fidelity(row.setting.label, row.seconds, again[row.setting], trained[row.setting])
        for row in first.rows
        if row.setting in again
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--trainings", type=int, default=5)
    parser.add_argument("--output", type=Path, help="stem of the .md and .json to write")
    options = parser.parse_args()
    overheads = measure_overhead(resolve_config(), options.steps, options.rounds)
    found = compare_twice(options.steps, options.repeats, options.trainings)
    machine = describe_environment()
    text = f"""# Fidelity of `vggnet compare`

- machine: {machine["cpu"]}, {machine["cpu_isa"]}, {machine["usable_cores"]} cores; \
torch {machine["torch"]}
- command: `python benchmarks/compare_fidelity.py {shlex.join(sys.argv[1:])}`
- overhead over the bare loop, {options.rounds} interleaved rounds of {options.steps} steps: median
  {_percent(statistics.median(overheads))} ({_percent(min(overheads))} to \
{_percent(max(overheads))})

Two runs of the command, {options.repeats} repeats of {options.steps} steps at the common batch
size each, then {options.trainings} processes of `vggnet train` for as many; seconds, median (least
to most).

| setting | first run | second run | ratio | ranges overlap | `vggnet train` | its rate |
|---|---|---|---|---|---|---|
"""
    for one in found:
        text += (
            f"| {one.setting} | {_spread(one.first)} | {_spread(one.second)} "
            f"| {one.again:.3f} | {'yes' if one.overlap else 'no'} "
            f"| {_spread(one.train)} | {one.rate_of_train:.3f} |\n"
        )
    print(text)
    if options.output:
        options.output.with_suffix(".md").write_text(text)
        record = {
            "environment": machine,
            "overheads": overheads,
            "settings": [asdict(one) for one in found],
        }
        options.output.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")


def _percent(share: float) -> str:
    return f"{100 * share:+.1f} %"


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    torch.set_num_threads(usable_cores())
    main()
