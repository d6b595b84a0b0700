"""What checkpoints cost, as a share of the training that they keep safe.

    python benchmarks/checkpoint_cost.py

For each network a real training state is saved `--saves` times, between steps as a run does
it: read off the device, hashed, written, flushed, renamed, the oldest removed. Beside it
stands what an epoch of 60,000 images takes, from as many steps timed in the same run. By
default a run saves every 30 seconds, and at each epoch's end.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from vggnet.artifacts.checkpoint import CheckpointFolder
from vggnet.config import Config
from vggnet.data.batches import Batches
from vggnet.data.preprocessing import Preprocessing
from vggnet.data.storage import load_dataset
from vggnet.engine.device import computing, usable_cores
from vggnet.engine.environment import describe_environment
from vggnet.engine.fit import TrainState, build_state, fit
from vggnet.engine.session import Session
from vggnet.engine.snapshot import Snapshot, take_snapshot
from vggnet.model.vgg import build_network
from vggnet.recipes import resolve_config
from vggnet.run import fit_to_data

IMAGES = 60_000
PAUSE = 30.0
"""Seconds between two checkpoints by default."""


def measure(config: Config, saves: int) -> tuple[list[float], list[float], int]:
    """Return the seconds of each save and of each step, and the bytes of a checkpoint."""
    dataset = load_dataset("mnist")
    config = fit_to_data(config, dataset, Session())
    size = config.train.global_batch_size
    cpu = torch.device("cpu")
    state = build_state(build_network(config.model, 0), config.train, cpu, Session())
    images = dataset.train.take(np.arange(size * saves), "as many as steps")
    batches = Batches(images, cpu, Preprocessing.from_config(config), batch_size=size)
    seconds: list[float] = []
    ends = [time.perf_counter()]
    steps: list[float] = []
    with tempfile.TemporaryDirectory(dir=".") as folder:
        checkpoints = CheckpointFolder(Path(folder, "checkpoints"))

        def between(state: TrainState) -> None:
            began = time.perf_counter()
            steps.append(began - ends[-1])
            snapshot = take_snapshot(state)
            history = torch.zeros(3 * IMAGES // size, 2, dtype=torch.float64)
            tensors = {**snapshot.tensors, "history": history}
            checkpoints.save(Snapshot(tensors, snapshot.values))
            ends.append(time.perf_counter())
            seconds.append(ends[-1] - began)

        for _ in fit(state, batches, between):
            pass
        written = max(path.stat().st_size for path in checkpoints.path.iterdir())
    return seconds[1:], steps[1:], written


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--saves", type=int, default=51)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    found = describe_environment()
    text = f"""# The cost of checkpoints

- machine: {found["cpu"]}, {found["usable_cores"]} cores; torch {found["torch"]}
- command: `python benchmarks/checkpoint_cost.py --saves {options.saves}`; the first is not counted

| network | a checkpoint | to save it, ms, median (least to most) | of 30 s | of an epoch |
|---|---|---|---|---|
"""
    for name, architecture in (("vgg-mini", "vgg-mini"), ("VGG D, a quarter as wide", "vgg-d")):
        train = {"epochs": 1}
        model = {"architecture": architecture}
        if architecture != "vgg-mini":
            model |= {"width": 0.25}
        config = resolve_config({"train": train, "model": model})
        with computing("fp32", usable_cores()):
            saves, steps, written = measure(config, options.saves)
        save, step = statistics.median(saves), statistics.median(steps)
        epoch = step * IMAGES / config.train.global_batch_size
        text += (
            f"| {name} | {written / 1e6:.1f} MB | {1e3 * save:.1f} ({1e3 * min(saves):.1f} to "
            f"{1e3 * max(saves):.1f}) | {100 * save / PAUSE:.2f} % | {100 * save / epoch:.2f} % |\n"
        )
    print(text)
    if options.output:
        options.output.write_text(text)


if __name__ == "__main__":
    main()
