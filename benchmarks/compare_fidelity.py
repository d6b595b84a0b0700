"""Check the figures of `vggnet compare`: overhead, repeatability, agreement with `vggnet train`.

    python benchmarks/compare_fidelity.py --output benchmarks/results/compare_fidelity

Three ratios that should be 1:

- the loop that `compare` times, against forward, backward and optimizer alone for as many steps,
  in `--rounds` interleaved rounds;
- each setting measured by two runs of the command. The report also says whether the two ranges
  overlap;
- the time that `compare` reports, against the time that `vggnet train` reports for the same
  steps in `--trainings` processes per setting, interleaved.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass

import torch
from measuring import build_parser, render_machine, render_spread, timed, write_report
from training_speed import bare_steps

from vggnet.compare.measure import Timer, Workload, time_cold_start, time_fit
from vggnet.compare.result import Result, Setting
from vggnet.config import Config
from vggnet.data.storage import load_dataset
from vggnet.engine.processor import usable_cores
from vggnet.engine.session import Session
from vggnet.recipes import resolve_config
from vggnet.run import fit_to_data


def measure_overhead(config: Config, steps: int, rounds: int) -> list[float]:
    """Return the overhead of `compare` over forward, backward and optimizer alone, per round."""
    dataset = load_dataset("mnist")
    setting = Setting(
        device="cpu",
        precision="fp32",
        global_batch_size=config.train.global_batch_size,
        threads=usable_cores(),
        kernels="torch",
    )
    workload = Workload(setting, fit_to_data(config, dataset, Session()), dataset, steps)
    overheads = []
    with workload.computing():
        bare = bare_steps(*workload.begin(), steps)
        bare()
        for _ in range(rounds):
            state, batches = workload.begin()
            whole, _ = time_fit([state], batches, Timer(), lambda state: None)
            overheads.append(whole / timed(bare) - 1)
    return overheads


def measure_twice(steps: int, repeats: int) -> list[Result]:
    """Run `vggnet compare` twice and return both results."""
    results = []
    for _ in range(2):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "vggnet", "compare", "--json", "--sweep", "none"]
            command += ["--steps", str(steps), "--repeats", str(repeats), "--output", folder]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
        results.append(Result.model_validate_json(done.stdout))
    return results


def train_in_turns(result: Result, times: int) -> dict[Setting, tuple[float, ...]]:
    """Run `vggnet train` for the steps of each row, interleaved; return its training seconds."""
    dataset = load_dataset("mnist")
    seconds: dict[Setting, tuple[float, ...]] = {}
    for _ in range(times):
        for row in result.rows:
            workload = Workload(row.setting, result.config, dataset, row.steps)
            found = time_cold_start(workload.settings(), Timer())[0].training_seconds
            seconds[row.setting] = (*seconds.get(row.setting, ()), found)
    return seconds


@dataclass(frozen=True)
class Fidelity:
    """Seconds of one setting from two runs of `vggnet compare` and from `vggnet train`."""

    setting: str
    first: tuple[float, ...]
    second: tuple[float, ...]
    train: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """The second run's median divided by the first's."""
        return statistics.median(self.second) / statistics.median(self.first)

    @property
    def overlap(self) -> bool:
        """Whether the ranges of the two runs overlap."""
        return max(min(self.first), min(self.second)) <= min(max(self.first), max(self.second))

    @property
    def train_ratio(self) -> float:
        """The rate of `vggnet train` divided by the rate of both runs, by medians."""
        return statistics.median(self.first + self.second) / statistics.median(self.train)


def compare_twice(steps: int, repeats: int, trainings: int) -> list[Fidelity]:
    """Measure the settings that both runs of the command chose."""
    first, second = measure_twice(steps, repeats)
    trained = train_in_turns(first, trainings)
    again = {row.setting: row.seconds for row in second.rows}
    return [
        Fidelity(row.setting.label, row.seconds, again[row.setting], trained[row.setting])
        for row in first.rows
        if row.setting in again
    ]


def main() -> None:
    parser = build_parser(__doc__)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--trainings", type=int, default=5)
    options = parser.parse_args()
    config = resolve_config({"train": {"growth_fraction": 0.0}})  # as `compare` does
    overheads = measure_overhead(config, options.steps, options.rounds)
    found = compare_twice(options.steps, options.repeats, options.trainings)
    rows = "".join(
        f"| {one.setting} | {render_spread(one.first, 2)} | {render_spread(one.second, 2)} "
        f"| {one.ratio:.3f} | {'yes' if one.overlap else 'no'} "
        f"| {render_spread(one.train, 2)} | {one.train_ratio:.3f} |\n"
        for one in found
    )
    text = f"""# Fidelity of `vggnet compare`

Overhead over forward, backward and optimizer alone, in {options.rounds} interleaved rounds of
{options.steps} steps: {render_spread([100 * one for one in overheads], 1)} %, median (min to max).

Two runs of `vggnet compare` with {options.repeats} repeats of {options.steps} steps per setting,
then {options.trainings} processes of `vggnet train` for the same steps. Seconds, median (min to
max).

| setting | first run | second run | ratio | ranges overlap | `vggnet train` | ratio of rates |
|---|---|---|---|---|---|---|
{rows}
{render_machine()}"""
    settings = [asdict(one) for one in found]
    write_report(options.output, text, {"overheads": overheads, "settings": settings})


if __name__ == "__main__":
    torch.set_num_threads(usable_cores())
    main()
