"""The VGG family as a table: stages of convolutions, then fully connected layers.

Source: K. Simonyan and A. Zisserman, "Very Deep Convolutional Networks for Large-Scale Image
Recognition", arXiv 1409.1556, table 1. `vgg-mini` is the network of the article that this
project started from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Layer = int | Literal["lrn"] | str
"""64 is the paper's conv3-64; "conv1-256" a 1×1 convolution; "lrn" response normalization."""

Stages = tuple[tuple[Layer, ...], ...]

MAX_STAGES = 10
"""Each stage halves the image, which has at most 1,024 pixels a side."""

MAX_WIDTH = 65_536


@dataclass(frozen=True)
class Architecture:
    """A column of the paper's table 1; every stage ends with a 2×2 max pool."""

    stages: Stages
    hidden: tuple[int, ...]
    """Widths of the fully connected layers before the last one."""


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
    "vgg-e": Architecture(((64, 64), (128, 128), (256,) * 4, (512,) * 4, (512,) * 4), _FULL),
}


def read_layer(layer: Layer) -> tuple[int, int] | None:
    """Return (kernel size, output channels) of a convolution, or None for "lrn".

    Raises:
        ValueError: It is not a layer.
    """
    if layer == "lrn":
        return None
    if isinstance(layer, int):
        kind, width = "conv3", layer
    else:
        kind, _, digits = layer.partition("-")
        width = int(digits) if digits.isdecimal() and len(digits) < 10 else 0
    if kind in ("conv1", "conv3") and 0 < width <= MAX_WIDTH:
        return int(kind[-1]), width
    shown = layer if isinstance(layer, int) or len(layer) <= 20 else f"{layer[:20]}…"
    raise ValueError(
        f"unknown layer {shown!r}; use a number of channels up to {MAX_WIDTH}, such as 64 (a 3×3 "
        'convolution), "conv1-64" (1×1) or "lrn"'
    )


def read_layers(text: str) -> tuple[Layer, ...]:
    """Read "64,conv1-64,lrn"."""
    parts = text.replace(" ", "").split(",")
    return tuple(int(one) if one.isdecimal() and len(one) < 10 else one for one in parts)


def check_stages(stages: Stages) -> None:
    """Check that a network can be built from `stages`.

    Raises:
        ValueError: It cannot.
    """
    if len(stages) > MAX_STAGES:
        raise ValueError(
            f"{len(stages)} stages; use at most {MAX_STAGES}, as each halves the image"
        )
    for stage in stages:
        if not stage or read_layer(stage[0]) is None:
            raise ValueError("every stage must start with a convolution")
        if any(read_layer(layer) is None for layer in stage[1:-1]):
            raise ValueError("lrn can only end a stage")
    if stages and read_layer(stages[-1][-1]) is None:
        # It has no weights, and no convolution follows: its place cannot be read from a file.
        raise ValueError("lrn cannot end the last stage")


def widen(row: Architecture, factor: float) -> Architecture:
    """Multiply the widths of all layers but the last; results are multiples of 8."""

    def scale(width: int) -> int:
        return max(8, 8 * round(width * factor / 8))

    def scale_layer(layer: Layer) -> Layer:
        found = read_layer(layer)
        if found is None:
            return layer
        kernel, width = found
        return scale(width) if kernel == 3 else f"conv1-{scale(width)}"

    if factor == 1:
        return row
    stages = tuple(tuple(map(scale_layer, stage)) for stage in row.stages)
    return Architecture(stages, tuple(map(scale, row.hidden)))
