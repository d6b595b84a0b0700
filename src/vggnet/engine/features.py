"""What a network computes on the way to its logits."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from vggnet.kernels.network import AcceleratedNetwork


@dataclass(frozen=True)
class Trace:
    """The values inside a network for N images."""

    stages: tuple[Tensor, ...]
    """The feature map at the end of each stage, after its pool and ReLU, (N, C, S, S)."""
    hidden: tuple[Tensor, ...]
    """The outputs of the hidden fully connected layers, after ReLU, (N, width)."""
    logits: Tensor
    """(N, num_classes)."""


def trace(network: nn.Module, images: Tensor) -> Trace:
    """Run a VGG, accelerated or not, and keep what its stages and hidden layers compute.

    Args:
        network: In evaluation mode.
        images: Preprocessed, (N, C, S, S).
    """
    layers = network.get_submodule("features").children()
    steps = network.steps if isinstance(network, AcceleratedNetwork) else layers
    stages: list[Tensor] = []
    values = images
    for step in steps:
        before = values.shape[-1]
        values = step(values)
        if values.shape[-1] < before:  # a ReLU after the pool changes this tensor in place
            stages.append(values)
    values = values.flatten(1)
    hidden: list[Tensor] = []
    for layer in network.get_submodule("classifier").children():
        values = layer(values)
        if isinstance(layer, nn.ReLU):
            hidden.append(values)
    return Trace(tuple(stages), tuple(hidden), values)
