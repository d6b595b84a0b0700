"""What a second process brings on this machine, beside a second thread.

    python benchmarks/scaling.py

`vggnet train` as a user runs it, `--rounds` times in turn, each at the same global batch:

- one process with one thread, which everything is a multiple of;
- one process with two threads;
- two processes with one thread each, which share the batch and average their gradients;
- two processes that know nothing of each other, each with half the batch and a core of its
  own. They do the same arithmetic without a word, so what they lose is the machine's (caches,
  memory, clock), and what the pair above loses beyond it is communication.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from vggnet.engine.device import usable_cores
from vggnet.engine.environment import describe_environment

IMAGES = 60_000
"""In an epoch."""

BATCH = 128

WAYS = ("1 process × 1 thread", "1 process × 2 threads", "2 processes × 1 thread", "2 apart")


Run = subprocess.Popen[str]


def begin(folder: str, epochs: float, *options: str, core: int | None = None) -> Run:
    """Start a training run, on one core or on all."""
    command = [sys.executable, "-m", "vggnet", "train", "--json", "--epochs", str(epochs), *options]
    if core is not None:
        command = ["taskset", "-c", str(core), *command]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)


def rate_of(run: Run, epochs: float) -> float:
    """Return the images a second of a run, once it has ended; its start is not counted."""
    out, _ = run.communicate()
    if run.returncode:
        raise SystemExit(f"{run.args} ended with {run.returncode}")
    return IMAGES * epochs / sum(one["seconds"] for one in json.loads(out)["epochs"])


def measure(way: str, epochs: float) -> float:
    """Return the images a second that one way reaches."""
    with tempfile.TemporaryDirectory() as folder:
        if way == WAYS[3]:
            half = ("--threads", "1", "--batch-size", str(BATCH // 2))
            runs = [
                begin(folder, epochs / 2, *half, "--output", f"{core}.pth", core=core)
                for core in (0, 1)
            ]
            return sum(rate_of(run, epochs / 2) for run in runs)
        options = {
            WAYS[0]: ("--threads", "1"),
            WAYS[1]: ("--threads", "2"),
            WAYS[2]: ("--threads", "1", "--nproc", "2"),
        }[way]
        return rate_of(begin(folder, epochs, *options, "--batch-size", str(BATCH)), epochs)


def render(rates: dict[str, list[float]], command: str) -> str:
    """Write the table and what follows from it."""
    found = describe_environment()
    median = {way: statistics.median(values) for way, values in rates.items()}
    base = median[WAYS[0]]
    lines = [
        "# One process or two on one machine",
        "",
        f"- machine: {found['cpu']}, {found['cpu_isa']}, {found['usable_cores']} cores; torch "
        f"{found['torch']}",
        f"- command: `{command}`; `vggnet train`, recipe `fast`, global batch {BATCH}",
        f"- {len(rates[WAYS[0]])} interleaved rounds; median (least to most)",
        "",
        "| | images/s | of one thread's | efficiency |",
        "|---|---|---|---|",
    ]
    for way, values in rates.items():
        cores = 1 if way == WAYS[0] else 2
        times = median[way] / base
        lines.append(f"| {way} | {_spread(values)} | {times:.2f} | {100 * times / cores:.0f} % |")
    machine = 1 - median[WAYS[3]] / (2 * base)
    words = 1 - median[WAYS[2]] / median[WAYS[3]]
    lines += [
        "",
        f"Two processes that do not talk already lose {100 * machine:.1f} % to the machine that "
        f"they share. Averaging gradients and waiting for each other costs the pair another "
        f"{100 * words:.1f} %.",
    ]
    return "\n".join(lines) + "\n"


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):,.0f} ({min(values):,.0f} to {max(values):,.0f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=float, default=0.4)
    parser.add_argument("--output", type=Path, help="stem of the .md and .json to write")
    options = parser.parse_args()
    if usable_cores() < 2:
        raise SystemExit("two processes need two cores")
    rates: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(options.rounds):
        for way in WAYS:
            rates[way].append(measure(way, options.epochs))
    command = f"python benchmarks/scaling.py --rounds {options.rounds} --epochs {options.epochs}"
    text = render(rates, command)
    print(text)
    if options.output:
        options.output.with_suffix(".md").write_text(text)
        record = {"environment": describe_environment(), "images_per_second": rates}
        options.output.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
