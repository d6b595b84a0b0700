"""Measure how much of the training time checkpoints take.

    python benchmarks/checkpoint_cost.py --output benchmarks/results/checkpoint_cost

For each network the script saves a real training state `--saves` times between steps, as a run
does: copy from the device, hash, write, flush, rename, delete the oldest. It times the same
number of training steps in the same run to express the cost as a share of an epoch of 60,000
images. By default a run saves every 30 seconds and at the end of each epoch.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from measuring import build_parser, render_machine, render_spread, write_report

from vggnet.artifacts.checkpoint import CheckpointFolder
from vggnet.config import Config
from vggnet.data.batches import Batches
from vggnet.data.preprocessing import Preprocessing
from vggnet.data.storage import load_dataset
from vggnet.engine.device import computing
from vggnet.engine.fit import TrainState, build_state, fit
from vggnet.engine.processor import usable_cores
from vggnet.engine.session import Session
from vggnet.engine.snapshot import Snapshot, take_snapshot
from vggnet.model.vgg import build_network
from vggnet.recipes import resolve_config
from vggnet.run import fit_to_data

IMAGES = 60_000
INTERVAL = 30.0
"""Default seconds between two checkpoints."""

NETWORKS = {
    "vgg-mini": {"architecture": "vgg-mini"},
    "VGG D, a quarter of the width": {"architecture": "vgg-d", "width": 0.25},
}


def measure(config: Config, saves: int) -> tuple[list[float], list[float], int]:
    """Return the seconds of each save, the seconds of each step, and a checkpoint's bytes.

    The first save and step are warm-up and left out.
    """
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

        def save(state: TrainState) -> None:
            started = time.perf_counter()
            steps.append(started - ends[-1])
            snapshot = take_snapshot(state)
            history = torch.zeros(3 * IMAGES // size, 2, dtype=torch.float64)
            tensors = {**snapshot.tensors, "history": history}
            checkpoints.save(Snapshot(tensors, snapshot.values))
            ends.append(time.perf_counter())
            seconds.append(ends[-1] - started)

        for _ in fit(state, batches, save):
            pass
        written = max(path.stat().st_size for path in checkpoints.path.iterdir())
    return seconds[1:], steps[1:], written


def main() -> None:
    parser = build_parser(__doc__)
    parser.add_argument("--saves", type=int, default=51, help="the first is not counted")
    options = parser.parse_args()
    figures = {}
    rows = ""
    for name, model in NETWORKS.items():
        config = resolve_config({"train": {"epochs": 1}, "model": model})
        with computing("fp32", usable_cores()):
            saves, steps, written = measure(config, options.saves)
        figures[name] = {"save_seconds": saves, "step_seconds": steps, "bytes": written}
        save = statistics.median(saves)
        epoch = statistics.median(steps) * IMAGES / config.train.global_batch_size
        rows += (
            f"| {name} | {written / 1e6:.1f} MB | {render_spread([1e3 * one for one in saves], 1)} "
            f"| {100 * save / INTERVAL:.2f} % | {100 * save / epoch:.2f} % |\n"
        )
    text = f"""# Cost of checkpoints

Recipe `{config.recipe}`. Median (min to max) of {len(saves)} saves.

| network | checkpoint | saving, ms | share of 30 s | share of an epoch |
|---|---|---|---|---|
{rows}
{render_machine()}"""
    write_report(options.output, text, figures)


if __name__ == "__main__":
    main()
