"""Time the compiled kernels against torch's convolutions: passes, training steps, inference.

    python benchmarks/kernels.py --output benchmarks/results/kernels [--rounds 21] [--threads N]

Both sides run in one process on the same tensors, interleaved; the ratio is that of the medians.
Both use channels-last layers and `keep_memory`. The time to compile is reported separately.
`--cpu-time` measures the CPU time of the main thread instead of wall time, which is more stable
on a busy machine; it needs `--threads 1`.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial

import torch
import torch.nn.functional as F
from measuring import build_parser, interleave, render_machine, render_spread, write_report
from torch import Tensor, nn

from vggnet.config import ModelConfig
from vggnet.engine.device import place
from vggnet.kernels import accelerate, keep_memory, reference, status
from vggnet.kernels.library import NONE, RELU, RELU_POOL
from vggnet.kernels.loading import library_for
from vggnet.model.vgg import build_network

Action = Callable[[], object]

BATCH = 128

FUSED = {NONE: "", RELU: " with ReLU", RELU_POOL: " with ReLU and pool"}

# Channels and image size of vgg-mini's convolutions, and the activation of one of them.
LAYERS = ((32, 32, 28, RELU_POOL), (32, 64, 14, RELU), (64, 64, 14, RELU_POOL))


def build_pair(config: ModelConfig) -> list[nn.Module]:
    """Build the same network twice: with torch's convolutions, and with the kernels."""
    networks = [build_network(config, 0) for _ in range(2)]
    for network in networks:
        place(network, torch.device("cpu"))
    return [
        accelerate(network, kernels)
        for network, kernels in zip(networks, ("torch", "winograd"), strict=True)
    ]


def train_step(network: nn.Module, images: Tensor, labels: Tensor) -> Action:
    """Return a function that runs one step of fused Adam."""
    optimizer = torch.optim.Adam(network.parameters(), fused=True)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(network(images), labels).backward()
        optimizer.step()

    return step


def predict(network: nn.Module, images: Tensor) -> Action:
    """Return a function that computes logits without gradients."""
    network.eval()
    return torch.inference_mode()(lambda: network(images))


def passes(
    channels: int, width: int, size: int, fused: int
) -> Iterator[tuple[str, Action, Action]]:
    """Yield the passes of one layer, with torch and with the kernel."""
    images = reference.channels_last(torch.randn(BATCH, channels, size, size))
    weight = reference.channels_last(torch.randn(width, channels, 3, 3))
    bias = torch.randn(width)
    library = library_for(weight)
    name = f"{channels}→{width} at {size}"
    for activation in (NONE, fused):
        yield (
            f"{name}: forward{FUSED[activation]}",
            partial(torch_layer, images, weight, bias, activation),
            partial(library.forward, images, weight, bias, activation),
        )
    found = library.forward(images, weight, bias, NONE)
    gradients = reference.channels_last(torch.randn(BATCH, width, size, size))
    for text, wanted in (("backward-data", (True, False)), ("backward-weights", (False, True))):
        given = (gradients, found, images, weight, wanted)
        yield (
            f"{name}: {text}",
            partial(reference.backward, *given),
            partial(library.backward, *given),
        )


def torch_layer(images: Tensor, weight: Tensor, bias: Tensor, activation: int) -> Tensor:
    """Compute a layer as a network with torch's convolutions does."""
    outputs = F.conv2d(images, weight, bias, padding=1)
    if activation == RELU_POOL:
        outputs = F.max_pool2d(outputs, 2)
    return outputs if activation == NONE else F.relu_(outputs)


def comparisons(only: str) -> Iterator[tuple[str, Action, Action, int]]:
    """Yield the name, both sides and the images per call of each comparison."""
    for layer in LAYERS:
        for name, theirs, ours in passes(*layer):
            yield name, theirs, ours, BATCH
    images, labels = torch.randn(BATCH, 1, 28, 28), torch.randint(0, 10, (BATCH,))
    for norm in (False, True):
        name = "vgg-mini" + (", batch norm" if norm else "")
        theirs, ours = build_pair(ModelConfig(batch_norm=norm))
        yield (
            f"{name}: training step", train_step(theirs, images, labels),
            train_step(ours, images, labels), BATCH,
        )  # fmt: skip
        yield f"{name}: inference", predict(theirs, images), predict(ours, images), BATCH
    if only != "mini":
        images, labels = torch.randn(64, 3, 32, 32), torch.randint(0, 10, (64,))
        config = ModelConfig(architecture="vgg-d", hidden=(128,), in_channels=3, image_size=32)
        theirs, ours = (train_step(one, images, labels) for one in build_pair(config))
        yield "VGG D at 32×32, batch 64: training step", theirs, ours, 64


def main() -> None:
    parser = build_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--cpu-time", action="store_true")
    parser.add_argument("--only", choices=("all", "mini"), default="all")
    options = parser.parse_args()
    if options.cpu_time and options.threads != 1:
        parser.error("--cpu-time measures one thread; add --threads 1")
    torch.set_num_threads(options.threads)
    keep_memory()
    clock = time.thread_time if options.cpu_time else time.perf_counter

    def milliseconds(action: Action) -> float:
        started = clock()
        action()
        return (clock() - started) * 1000

    figures, rows = {}, ""
    for name, theirs, ours, images in comparisons(options.only):
        for action in (theirs, ours) * 2:  # warm up
            action()
        sides = {"torch": partial(milliseconds, theirs), "kernels": partial(milliseconds, ours)}
        found = figures[name] = interleave(sides, options.rounds)
        medians = [statistics.median(values) for values in found.values()]
        rows += (
            f"| {name} | {render_spread(found['torch'], 2)} | {render_spread(found['kernels'], 2)} "
            f"| {medians[0] / medians[1]:.2f} | {images / medians[1] * 1000:,.0f} |\n"
        )
    kernels = status("winograd")
    text = f"""# Compiled kernels against torch's convolutions

Median (min to max) of {options.rounds} interleaved rounds, batch {BATCH}, \
{"CPU time of one thread" if options.cpu_time else "wall time"}.

| | torch, ms | kernels, ms | ratio | images/s |
|---|---|---|---|---|
{rows}
- kernels: {kernels.reason}; {kernels.compiler}
- time to compile in this process: {kernels.seconds_to_compile:.1f} s (0.0: from the cache)
{render_machine(options.threads)}"""
    write_report(options.output, text, {"milliseconds": figures})


if __name__ == "__main__":
    main()
