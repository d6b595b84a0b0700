"""The VGG family as a table: stages of convolutions, then fully connected layers.

Source: K. Simonyan and A. Zisserman, "Very Deep Convolutional Networks for
Large-Scale Image Recognition", arXiv 1409.1556, table 1. `vgg-mini` is the
network of the article this project started from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Layer = int | Literal["lrn"] | str
"""64 is the paper's conv3-64; "conv1-256" a 1×1 convolution; "lrn" response normalization."""

Stages = tuple[tuple[Layer, ...], ...]


@dataclass(frozen=True)
class Architecture:
    """One column of the paper's table 1; every stage ends with a 2×2 max pool."""

    stages: Stages
    hidden: tuple[int, ...]
    """Widths of the fully connected layers before the one that gives the classes."""


_FULL = (4096, 4096)

ARCHITECTURES: dict[str, Architecture] = {
    "vgg-mini": Architecture(((32, 32), (64, 64)), (128,)),
    "vgg-a": Architecture(((64,), (128,), (256, 256), (512, 512), (512, 512)), _FULL),
    "vgg-a-lrn": Architecture(((64, "lrn"), (128,), (256, 256), (512, 512), (512, 512)), _FULL),
    "vgg-b": Architecture(((64, 64), (128, 128), (256, 256), (512, 512), (512, 512)), _FULL),
    "vgg-c": Architecture(
        (
            (64, 64),
            (128, 128),
            (256, 256, "conv1-256"),
            (512, 512, "conv1-512"),
            (512, 512, "conv1-512"),
        ),
        _FULL,
    ),
    "vgg-d": Architecture(
        ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512)), _FULL
    ),
    "vgg-e": Architecture(
        ((64, 64), (128, 128), (256,) * 4, (512,) * 4, (512,) * 4),
        _FULL,
    ),
}


def read_layer(layer: Layer) -> tuple[int, int] | None:
    """Return (kernel size, output channels) of a convolution, or None for "lrn".

    Raises:
        ValueError: The layer is none of the three forms.
    """
    if isinstance(layer, int) and layer > 0:
        return 3, layer
    if layer == "lrn":
        return None
    kind, _, width = str(layer).partition("-")
    if kind in ("conv1", "conv3") and width.isdecimal() and int(width) > 0:
        return int(kind[-1]), int(width)
    raise ValueError(
        f"unknown layer {layer!r}; use a number of channels such as 64 (a 3×3 convolution), "
        '"conv1-64" (1×1) or "lrn"'
    )


def widen(row: Architecture, by: float) -> Architecture:
    """Multiply the width of every layer but the last; channels become multiples of 8."""

    def scale(width: int) -> int:
        return max(8, 8 * round(width * by / 8))

    def scale_layer(layer: Layer) -> Layer:
        found = read_layer(layer)
        if found is None:
            return layer
        kernel, width = found
        return scale(width) if kernel == 3 else f"conv1-{scale(width)}"

    if by == 1:
        return row
    stages = tuple(tuple(map(scale_layer, stage)) for stage in row.stages)
    return Architecture(stages, tuple(map(scale, row.hidden)))
