"""Compare a second process with a second thread on one machine.

    python benchmarks/scaling.py --output benchmarks/results/scaling

Each round runs `vggnet train` in four ways at the same global batch size:

- one process with one thread, the baseline;
- one process with two threads;
- two processes with one thread each, which share the batch and average their gradients;
- two independent processes, each with half the batch size, pinned to one core each. They do the
  same arithmetic without communication. Their loss is due to the machine (caches, memory, clock
  rate); what the pair above loses in addition is communication.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from functools import partial

from measuring import (
    build_parser,
    interleave,
    render_machine,
    render_spread,
    write_report,
)

from vggnet.engine.processor import usable_cores

IMAGES = 60_000
"""Images in an epoch."""

BATCH = 128

BASELINE, THREADS, PROCESSES, INDEPENDENT = WAYS = (
    "1 process × 1 thread",
    "1 process × 2 threads",
    "2 processes × 1 thread",
    "2 independent processes",
)


Run = subprocess.Popen[str]


def start(folder: str, epochs: float, *options: str, core: int | None = None) -> Run:
    """Start a training run, on one core or on all."""
    command = [sys.executable, "-m", "vggnet", "train", "--json", "--epochs", str(epochs), *options]
    if core is not None:
        command = ["taskset", "-c", str(core), *command]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)


def rate_of(run: Run, epochs: float) -> float:
    """Wait for a run and return its images per second, without the time to start."""
    out, _ = run.communicate()
    if run.returncode:
        raise SystemExit(f"{run.args} ended with {run.returncode}")
    return IMAGES * epochs / sum(one["seconds"] for one in json.loads(out)["epochs"])


def measure(way: str, epochs: float) -> float:
    """Train once in one way and return the images per second."""
    with tempfile.TemporaryDirectory() as folder:
        if way == INDEPENDENT:
            half = ("--threads", "1", "--batch-size", str(BATCH // 2))
            runs = [
                start(folder, epochs / 2, *half, "--output", f"{core}.pth", core=core)
                for core in (0, 1)
            ]
            return sum(rate_of(run, epochs / 2) for run in runs)
        options = {
            BASELINE: ("--threads", "1"),
            THREADS: ("--threads", "2"),
            PROCESSES: ("--threads", "1", "--nproc", "2"),
        }[way]
        return rate_of(start(folder, epochs, *options, "--batch-size", str(BATCH)), epochs)


def render(rates: dict[str, list[float]]) -> str:
    """Render the table and the losses as Markdown."""
    median = {way: statistics.median(values) for way, values in rates.items()}
    rows = ""
    for way, values in rates.items():
        cores = 1 if way == BASELINE else 2
        speedup = median[way] / median[BASELINE]
        rows += f"| {way} | {render_spread(values, 0)} | {speedup:.2f} "
        rows += f"| {100 * speedup / cores:.0f} % |\n"
    machine = 100 * (1 - median[INDEPENDENT] / (2 * median[BASELINE]))
    communication = 100 * (1 - median[PROCESSES] / median[INDEPENDENT])
    return f"""# One process or two on one machine

`vggnet train`, recipe `fast`, global batch size {BATCH}. Median (min to max) of \
{len(rates[BASELINE])} interleaved rounds.

| | images/s | speedup | efficiency |
|---|---|---|---|
{rows}
Two independent processes lose {machine:.1f} % because they share the machine. Communication costs
two processes that train together another {communication:.1f} %.

{render_machine()}"""


def main() -> None:
    parser = build_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=float, default=0.4)
    options = parser.parse_args()
    if usable_cores() < 2:
        raise SystemExit("this benchmark needs two cores")
    rates = interleave({way: partial(measure, way, options.epochs) for way in WAYS}, options.rounds)
    write_report(options.output, render(rates), {"images_per_second": rates})


if __name__ == "__main__":
    main()
