"""The layers of a network: shapes, parameters, operations and receptive fields."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from vggnet.model.vgg import VGG


@dataclass(frozen=True)
class LayerSummary:
    """A layer, or a group of them."""

    stage: str
    """Stage 1, 2, … of the convolutions, or "classifier"."""
    name: str
    """What it is, such as "conv 3×3"."""
    output: tuple[int, ...]
    """(C, H, W) or (width,), after the batch norm and the pool that follow it."""
    parameters: int
    """Including those of its batch norm."""
    operations: int
    """Multiplications and additions for one image, each counted: FLOPs."""
    receptive_field: int | None
    """Pixels a side of the input that one output sees; None: all of it."""


def summarize_network(network: VGG) -> list[LayerSummary]:
    """Summarize the layers with weights, in their order.

    FLOPs are those of convolutions and matrix products, 2 for each product and its sum; the rest
    is less than a hundredth. The receptive field grows by (k − 1) times the product of the
    strides before it (Araujo et al., "Computing Receptive Fields", Distill 2019).
    """
    config = network.config
    shape: tuple[int, ...] = (config.in_channels, config.image_size, config.image_size)
    rows: list[LayerSummary] = []
    field, stride, stage = 1, 1, 1
    for layer in network.features:
        if isinstance(layer, nn.Conv2d):
            kernel = layer.kernel_size[0]
            field += (kernel - 1) * stride
            shape = (layer.out_channels, *shape[1:])
            products = layer.weight.numel() * shape[1] * shape[2]
            name = f"conv {kernel}×{kernel}"
            rows.append(LayerSummary(str(stage), name, shape, _count(layer), 2 * products, field))
        elif isinstance(layer, nn.MaxPool2d):
            field += stride
            stride *= 2
            stage += 1
            shape = (shape[0], shape[1] // 2, shape[2] // 2)
            rows[-1] = _extend(rows[-1], "pool", shape, 0, field)
        elif isinstance(layer, nn.BatchNorm2d):
            rows[-1] = _extend(rows[-1], "batch norm", shape, _count(layer), field)
        elif isinstance(layer, nn.LocalResponseNorm):
            rows[-1] = _extend(rows[-1], "lrn", shape, 0, field)
    for layer in network.classifier:
        if isinstance(layer, nn.Linear):
            count, products = _count(layer), 2 * layer.weight.numel()
            rows.append(
                LayerSummary("classifier", "linear", (layer.out_features,), count, products, None)
            )
    return rows


def _extend(
    row: LayerSummary, name: str, output: tuple[int, ...], parameters: int, field: int
) -> LayerSummary:
    count = row.parameters + parameters
    return LayerSummary(row.stage, f"{row.name}, {name}", output, count, row.operations, field)


def _count(module: nn.Module) -> int:
    parameters: list[torch.Tensor] = list(module.parameters())
    return sum(one.numel() for one in parameters)
