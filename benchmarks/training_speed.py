"""What the training loop adds to forward, backward and optimizer, and how fast they run.

    python benchmarks/training_speed.py

Three things are timed in turn, `--rounds` times: `fit` over `--steps` steps as `vggnet
train` runs it; the bare forward, backward and optimizer of as many steps on one batch that
lies ready; and a 2048³ single-precision matrix product. The bare loop's share of `fit`
says what everything else costs; FLOPs come from torch's own counter.
"""

from __future__ import annotations

import argparse
import shlex
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from vggnet.config import Config
from vggnet.data.batches import Batches
from vggnet.data.preprocessing import Preprocessing
from vggnet.data.storage import load_dataset
from vggnet.engine.device import computing, usable_cores
from vggnet.engine.environment import describe_environment
from vggnet.engine.fit import TrainState, build_state, fit
from vggnet.engine.session import Session
from vggnet.model.vgg import build_network
from vggnet.recipes import resolve_config

CPU = torch.device("cpu")
SIDE = 2048


def count_flops(config: Config, batch_size: int) -> int:
    """Count the floating-point operations of one training step, a multiply-add as two."""
    network = build_network(config.model, 0)
    images = torch.zeros(batch_size, 1, config.model.image_size, config.model.image_size)
    with FlopCounterMode(display=False) as counter:
        network(images).sum().backward()
    return int(counter.get_total_flops())


def bare_steps(state: TrainState, batches: Batches, steps: int) -> Callable[[], None]:
    """Return the bare computation of some steps on one batch, the first."""
    batch = next(batches.in_order())
    smoothing = state.config.label_smoothing

    def run() -> None:
        state.replica.train()
        for _ in range(steps):
            loss = F.cross_entropy(
                state.replica(batch.images), batch.labels, label_smoothing=smoothing
            )
            state.optimizer.zero_grad()
            loss.backward()
            state.optimizer.step()

    return run


def timed(run: Callable[[], object]) -> float:
    """Return the seconds that a call takes."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--kernels", choices=["auto", "winograd", "torch"], default="auto")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    config = resolve_config({"train": {"kernels": options.kernels, "epochs": 1}})
    size = config.train.global_batch_size
    train = load_dataset("mnist").train.take(np.arange(options.steps * size), "some")
    with computing("fp32", usable_cores()):
        batches = Batches(train, CPU, Preprocessing.from_config(config), batch_size=size)
        states = [
            build_state(build_network(config.model, 0), config.train, CPU, Session())
            for _ in range(2)
        ]
        bare = bare_steps(states[1], batches, options.steps)
        left, right = torch.rand(SIDE, SIDE), torch.rand(SIDE, SIDE)

        def whole() -> None:
            states[0].step = 0
            list(fit(states[0], batches))

        tasks = {"fit": whole, "bare": bare, "sgemm": lambda: left @ right}
        for task in tasks.values():
            task()
        seconds: dict[str, list[float]] = {name: [] for name in tasks}
        for _ in range(options.rounds):
            for name, task in tasks.items():
                seconds[name].append(timed(task))
    median = {name: statistics.median(values) for name, values in seconds.items()}
    overheads = [
        1 - bare / whole for bare, whole in zip(seconds["bare"], seconds["fit"], strict=True)
    ]
    flops = count_flops(config, size)
    achieved = flops * options.steps / median["fit"] / 1e9
    peak = 2 * SIDE**3 / median["sgemm"] / 1e9
    found = describe_environment()
    text = f"""# Training speed

`fit` on vgg-mini, batch {size}, {options.steps} steps, kernels {options.kernels}; medians of
{options.rounds} interleaved rounds (least to most).

| | |
|---|---|
| step of `fit`, ms | {_spread(seconds["fit"], options.steps)} |
| bare forward, backward and optimizer, ms | {_spread(seconds["bare"], options.steps)} |
| everything else, share of the step | {100 * statistics.median(overheads):.1f} % \
({100 * min(overheads):.1f} to {100 * max(overheads):.1f}) |
| FLOPs a step, by torch's counter | {flops / 1e9:.2f} G |
| achieved, GFLOP/s of direct convolution | {achieved:.0f} |
| {SIDE}³ sgemm, GFLOP/s | {peak:.0f} |
| achieved, share of sgemm | {100 * achieved / peak:.0f} % |

- machine: {found["cpu"]}, {found["cpu_isa"]}, {found["usable_cores"]} cores; torch {found["torch"]}
- command: `python benchmarks/training_speed.py {shlex.join(sys.argv[1:])}`
"""
    print(text)
    if options.output:
        options.output.write_text(text)


def _spread(values: list[float], steps: int) -> str:
    ms = [1000 * value / steps for value in values]
    return f"{statistics.median(ms):.2f} ({min(ms):.2f} to {max(ms):.2f})"


if __name__ == "__main__":
    main()
