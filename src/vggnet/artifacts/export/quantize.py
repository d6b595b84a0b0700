"""Weights as whole numbers, with one scale for each output of a layer."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from vggnet.artifacts.export.program import EndToEndModel

_KINDS: dict[int, type[np.signedinteger[Any]]] = {8: np.int8, 16: np.int16}


def quantize_rows(
    weights: npt.NDArray[np.float32], bits: int
) -> tuple[npt.NDArray[Any], npt.NDArray[np.float32]]:
    """Round the weights of each output to whole numbers; the largest becomes the largest number.

    Args:
        weights: (outputs, inputs).
        bits: 8 or 16.

    Returns:
        Whole numbers, (outputs, inputs), and the scales, (outputs,): their product is about
        `weights`.
    """
    kind = _KINDS[bits]
    scales = np.abs(weights).max(axis=1) / np.iinfo(kind).max
    scales = np.where(scales > 0, scales, 1).astype(np.float32)
    return np.rint(weights / scales[:, np.newaxis]).astype(kind), scales


@torch.no_grad()
def round_weights(model: EndToEndModel, bits: int) -> EndToEndModel:
    """Return a model whose weights are what is left of them after `quantize_rows`."""
    rounded = copy.deepcopy(model)
    for layer in rounded.network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            whole, scales = quantize_rows(layer.weight.flatten(1).numpy(), bits)
            values = whole.astype(np.float32) * scales[:, np.newaxis]
            layer.weight.copy_(torch.from_numpy(values).view_as(layer.weight))
    return rounded
