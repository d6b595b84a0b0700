"""Measure the time and the memory that reading MNIST as CSV takes.

    python benchmarks/csv_reading.py --output benchmarks/results/csv_reading

Writes MNIST's 60,000 training images as Kaggle's table, raw and gzipped. A new process on one core
reads it as `vggnet train --dataset train.csv` does, and reports its time and its peak memory, with
Python and the libraries. Each round reads both files.
"""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from measuring import build_parser, render_machine, render_spread, write_report

FIGURES = (("cpu_seconds", 2), ("seconds", 2), ("peak_mib", 0), ("before_mib", 0))
"""What is reported, with its decimal places."""


def write_table(path: Path) -> None:
    from vggnet.data.storage import load_dataset

    train = load_dataset("mnist").train
    rows = np.concatenate([train.labels[:, None], train.images.reshape(len(train), -1)], axis=1)
    header = ",".join(["label", *(f"pixel{number}" for number in range(784))])
    lines = [header, *(",".join(map(str, row)) for row in rows.tolist()), ""]
    content = "\n".join(lines).encode()
    path.write_bytes(content)
    path.with_name("train.csv.gz").write_bytes(gzip.compress(content, 6))


def peak_mib() -> float:
    """Return the most memory that this process has had (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))


def read(path: str) -> dict[str, Any]:
    """Read a table, and return figures of this process."""
    from vggnet.data.storage import load_dataset

    before = peak_mib()
    started, used = time.perf_counter(), time.process_time()
    found = load_dataset(path)
    return {
        "seconds": time.perf_counter() - started,
        "cpu_seconds": time.process_time() - used,
        "images": len(found.train) + len(found.test),
        "before_mib": before,
        "peak_mib": peak_mib(),
    }


def main() -> None:
    parser = build_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--child", help="for the script itself")
    options = parser.parse_args()
    if options.child:
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
        print(json.dumps(read(options.child)))
        return
    runs: dict[str, list[dict[str, Any]]] = {"train.csv": [], "train.csv.gz": []}
    with tempfile.TemporaryDirectory() as place:
        write_table(Path(place, "train.csv"))
        sizes = {name: Path(place, name).stat().st_size / 1e6 for name in runs}
        for _ in range(options.rounds):
            for name, found in runs.items():
                command = [sys.executable, __file__, "--child", str(Path(place, name))]
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                found.append(json.loads(done.stdout))
    rows = []
    for name, found in runs.items():
        figures = [
            render_spread([run[key] for run in found], digits)
            for key, digits in (
                ("cpu_seconds", 2),
                ("seconds", 2),
                ("peak_mib", 0),
                ("before_mib", 0),
            )
        ]
        rows.append(f"| {name}, {sizes[name]:.0f} MB | {' | '.join(figures)} |")
    report = f"""\
# Reading MNIST as CSV

A table of {runs["train.csv"][0]["images"]:,} rows with a label and 784 pixels, read by a new
process on one core: median (least to most) of {options.rounds} rounds.

| file | CPU seconds | seconds | peak memory, MiB | of that before reading, MiB |
|---|---|---|---|---|
{chr(10).join(rows)}

{render_machine()}"""
    write_report(options.output, report, runs)


if __name__ == "__main__":
    main()
