"""Measure the overhead of the training loop over forward, backward and optimizer.

    python benchmarks/training_speed.py --output benchmarks/results/training_speed

Each round times three things in turn: `--steps` steps of `fit`, as `vggnet train` runs it; as
many steps of forward, backward and optimizer alone, on one batch that is already prepared; and
a 2048³ float32 matrix product. The difference between the first two is the overhead. FLOPs come
from torch's counter.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from measuring import (
    build_parser,
    interleave,
    render_machine,
    render_spread,
    timed,
    write_report,
)
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from vggnet.config import Config
from vggnet.data.batches import Batches
from vggnet.data.preprocessing import Preprocessing
from vggnet.data.storage import load_dataset
from vggnet.engine.device import computing
from vggnet.engine.fit import TrainState, build_state, fit
from vggnet.engine.processor import usable_cores
from vggnet.engine.session import Session
from vggnet.model.vgg import build_network
from vggnet.recipes import resolve_config

CPU = torch.device("cpu")
SIDE = 2048


def count_flops(config: Config, batch_size: int) -> int:
    """Count the FLOPs of one training step; a multiply-add counts as two."""
    network = build_network(config.model, 0)
    images = torch.zeros(batch_size, 1, config.model.image_size, config.model.image_size)
    with FlopCounterMode(display=False) as counter:
        network(images).sum().backward()
    return int(counter.get_total_flops())


def bare_steps(state: TrainState, batches: Batches, steps: int) -> Callable[[], None]:
    """Return a function that computes some steps on the first batch, without the loop."""
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


def main() -> None:
    parser = build_parser(__doc__)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--kernels", choices=["auto", "winograd", "torch"], default="auto")
    options = parser.parse_args()
    settings = {"kernels": options.kernels, "epochs": 1, "growth_fraction": 0.0}
    config = resolve_config({"train": settings})
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
        measures = {name: partial(timed, task) for name, task in tasks.items()}
        seconds = interleave(measures, options.rounds)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    pairs = zip(seconds["bare"], seconds["fit"], strict=True)
    overheads = [100 * (1 - bare / whole) for bare, whole in pairs]
    flops = count_flops(config, size)
    achieved = flops * options.steps / median["fit"] / 1e9
    peak = 2 * SIDE**3 / median["sgemm"] / 1e9
    ms = {name: [1e3 * value / options.steps for value in seconds[name]] for name in tasks}
    text = f"""# Training speed

Recipe `{config.recipe}` on vgg-mini: batch {size}, {options.steps} steps, kernels \
{options.kernels}. Median (min to max) of {options.rounds} interleaved rounds.

| | |
|---|---|
| step of `fit`, ms | {render_spread(ms["fit"], 2)} |
| forward, backward and optimizer alone, ms | {render_spread(ms["bare"], 2)} |
| overhead, % of the step | {render_spread(overheads, 1)} |
| FLOPs per step, by torch's counter | {flops / 1e9:.2f} G |
| achieved, GFLOP/s of direct convolution | {achieved:.0f} |
| {SIDE}³ sgemm, GFLOP/s | {peak:.0f} |
| achieved, share of sgemm | {100 * achieved / peak:.0f} % |

FLOPs are those of direct convolution. Winograd's algorithm needs fewer, so the share of sgemm can
exceed 100 %.

{render_machine()}"""
    write_report(options.output, text, {"seconds": seconds, "flops_per_step": flops})


if __name__ == "__main__":
    main()
