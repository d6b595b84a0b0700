"""Time the compiled kernels against torch's convolutions: passes, training steps, inference.

    python benchmarks/kernels.py [--rounds 21] [--threads N] [--output FILE.md]

Both sides run in one process on the same tensors and take turns (A B A B); each figure is the
median of `rounds` with its quartiles, and the ratio is that of the medians. Layers are channels
last on both sides, memory is kept between steps (`keep_memory`) on both sides, and compiling is
reported apart. `--cpu-time` measures the main thread's CPU time instead of the wall's, which on
a machine shared with other work is the steadier figure; it needs `--threads 1`.
"""

from __future__ import annotations

import argparse
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vggnet.kernels import accelerate, keep_memory, reference, status
from vggnet.kernels.library import NONE, RELU, RELU_POOL
from vggnet.kernels.loading import library_for

# vgg-mini and VGG D (arXiv 1409.1556, table 1): channels of each convolution, stage by stage.
VGG_MINI = ((32, 32), (64, 64))
VGG_D = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))

Action = Callable[[], object]


@dataclass(frozen=True)
class Row:
    """One comparison: milliseconds by torch and by the kernels, one entry a round."""

    name: str
    torch_ms: list[float]
    kernels_ms: list[float]
    images: int

    def cells(self) -> list[str]:
        """Return the row of the table."""
        sides = (self.torch_ms, self.kernels_ms)
        medians = [statistics.median(times) for times in sides]
        shown = [f"{statistics.median(times):.2f} ({_quartiles(times)})" for times in sides]
        rate = f"{self.images / medians[1] * 1000:,.0f}"
        return [self.name, *shown, f"{medians[0] / medians[1]:.2f}", rate]


def build(stages: Iterable[Iterable[int]], channels: int, size: int, *, norm: bool) -> nn.Module:
    """Build a VGG as the package does: pool before the stage's last ReLU."""
    layers: list[nn.Module] = []
    for widths in stages:
        for position, width in enumerate(widths := list(widths)):
            layers.append(nn.Conv2d(channels, width, 3, padding=1))
            if norm:
                layers.append(nn.BatchNorm2d(width))
            if position == len(widths) - 1:
                layers.append(nn.MaxPool2d(2))
            layers.append(nn.ReLU(inplace=True))
            channels = width
        size //= 2
    network = nn.Module()
    network.features = nn.Sequential(*layers)
    network.classifier = nn.Sequential(
        nn.Linear(channels * size * size, 128), nn.ReLU(inplace=True), nn.Dropout(),
        nn.Linear(128, 10),
    )  # fmt: skip
    network.forward = lambda images: network.classifier(network.features(images).flatten(1))  # type: ignore[method-assign]
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def pair(
    stages: Iterable[Iterable[int]], channels: int, size: int, *, norm: bool
) -> list[nn.Module]:
    """Build the same network twice: torch's, and with the kernels."""
    torch.manual_seed(0)
    plain = build(stages, channels, size, norm=norm)
    torch.manual_seed(0)
    other = accelerate(build(stages, channels, size, norm=norm), kernels="winograd")
    return [plain, other]


def train_step(network: nn.Module, images: Tensor, labels: Tensor) -> Action:
    """Return what takes one step of fused Adam."""
    optimizer = torch.optim.Adam(network.parameters(), fused=True)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(network(images), labels).backward()
        optimizer.step()

    return step


def predict(network: nn.Module, images: Tensor) -> Action:
    """Return what computes logits without gradients."""
    network.eval()

    def run() -> None:
        with torch.inference_mode():
            network(images)

    return run


def passes(
    channels: int, width: int, size: int, activation: int
) -> Iterable[tuple[str, Action, Action]]:
    """Yield the passes of one layer at batch 128, by torch and by the kernel."""
    last = torch.channels_last
    images = torch.randn(128, channels, size, size).contiguous(memory_format=last)
    weight = torch.randn(width, channels, 3, 3).contiguous(memory_format=last)
    bias = torch.randn(width)
    library = library_for(weight)
    convolved = library.forward(images, weight, bias, activation)
    assert convolved is not None
    gradients = torch.randn(convolved.outputs.shape).contiguous(memory_format=last)
    name = f"{channels}→{width} at {size}"
    behind = {NONE: "", RELU: " with ReLU", RELU_POOL: " with ReLU and pool"}[activation]
    yield (
        f"{name}: forward{behind}",
        lambda: _torch_layer(images, weight, bias, activation),
        lambda: library.forward(images, weight, bias, activation),
    )
    if activation != NONE:
        return
    for what, wanted in (("backward-data", (True, False)), ("backward-weights", (False, True))):
        given = (gradients, convolved, images, weight, wanted)
        yield (
            f"{name}: {what}",
            partial(reference.backward, *given),
            partial(library.backward, *given),
        )


def _torch_layer(images: Tensor, weight: Tensor, bias: Tensor, activation: int) -> Tensor:
    outputs = F.conv2d(images, weight, bias, padding=1)
    if activation == RELU_POOL:
        outputs = F.max_pool2d(outputs, 2)
    return outputs if activation == NONE else F.relu_(outputs)


def interleave(actions: list[Action], rounds: int, clock: Callable[[], float]) -> list[list[float]]:
    """Run the actions in turns; return each one's milliseconds."""
    for action in actions:
        action()
        action()
    times: list[list[float]] = [[] for _ in actions]
    for _ in range(rounds):
        for action, into in zip(actions, times, strict=True):
            started = clock()
            action()
            into.append((clock() - started) * 1000)
    return times


def comparisons(only: str) -> Iterable[tuple[str, list[Action], int]]:
    """Yield name, actions of both sides, and images a call."""
    for channels, width, size in ((32, 32, 28), (32, 64, 14), (64, 64, 14)):
        for activation in (NONE, RELU if channels != width else RELU_POOL):
            for name, theirs, ours in passes(channels, width, size, activation):
                yield name, [theirs, ours], 128
    images, labels = torch.randn(128, 1, 28, 28), torch.randint(0, 10, (128,))
    for norm in (False, True):
        name = "vgg-mini" + (", batch norm" if norm else "")
        networks = pair(VGG_MINI, 1, 28, norm=norm)
        yield f"{name}: training step", [train_step(n, images, labels) for n in networks], 128
        yield f"{name}: inference, batch 128", [predict(n, images) for n in networks], 128
    if only != "mini":
        images, labels = torch.randn(64, 3, 32, 32), torch.randint(0, 10, (64,))
        networks = pair(VGG_D, 3, 32, norm=False)
        yield (
            "VGG D at 32×32, batch 64: training step",
            [train_step(n, images, labels) for n in networks],
            64,
        )


def describe(arguments: argparse.Namespace) -> list[str]:
    """Return what a reader needs to judge the figures."""
    found = status("winograd")
    first = Path("/proc/cpuinfo").read_text().split("\n\n", 1)[0]
    cpu = {key.strip(): value.strip() for key, _, value in
           (line.partition(":") for line in first.splitlines())}  # fmt: skip
    generation = f"family {cpu.get('cpu family')}, model {cpu.get('model')}"
    model = f"{cpu.get('model name', platform.processor())} ({generation})"
    return [
        f"- command: `python benchmarks/kernels.py {shlex.join(sys.argv[1:])}`",
        f"- CPU: {model}; {arguments.threads} threads; kernels {found.reason}",
        f"- torch {torch.__version__}, Python {platform.python_version()}, {found.compiler}",
        f"- compiling: {found.seconds_to_compile:.1f} s in this process (0.0: found in the cache)",
        f"- {'CPU time of one thread' if arguments.cpu_time else 'wall time'}, "
        f"medians of {arguments.rounds} interleaved rounds (quartiles)",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--cpu-time", action="store_true")
    parser.add_argument("--only", choices=("all", "mini"), default="all")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    if arguments.cpu_time and arguments.threads != 1:
        parser.error("--cpu-time counts one thread; add --threads 1")
    torch.set_num_threads(arguments.threads)
    keep_memory()
    clock = time.thread_time if arguments.cpu_time else time.perf_counter
    lines = [
        "# Compiled kernels against torch's convolutions", "", *describe(arguments), "",
        "| | torch (ms) | kernels (ms) | ratio | images/s |", "|---|---|---|---|---|",
    ]  # fmt: skip
    print("\n".join(lines), flush=True)
    for name, actions, images in comparisons(arguments.only):
        row = Row(name, *interleave(actions, arguments.rounds, clock), images)
        lines.append("| " + " | ".join(row.cells()) + " |")
        print(lines[-1], flush=True)
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text("\n".join(lines) + "\n")


def _quartiles(times: list[float]) -> str:
    low, _, high = statistics.quantiles(times, n=4)
    return f"{low:.2f} to {high:.2f}"


if __name__ == "__main__":
    main()
