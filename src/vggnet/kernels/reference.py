"""The kernels' operations in torch: the tests' reference, and the fallback for NaN and infinity."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vggnet.kernels.library import RELU, RELU_POOL, Activated, NormGradient

# Value of `choice` where ReLU set the maximum to zero, as in tile_transforms.h.
_CLIPPED = 4


def forward(images: Tensor, weight: Tensor, bias: Tensor | None, activation: int) -> Activated:
    """Compute what `Library.forward` computes."""
    return activate(F.conv2d(images, weight, bias, padding=1), activation)


def activate(outputs: Tensor, activation: int) -> Activated:
    """Apply ReLU and pool to (N, K, H, W)."""
    choice = torch.empty((0, 0, 0, 0), dtype=torch.uint8, device=outputs.device)
    if activation == RELU:
        outputs = F.relu(outputs)
    elif activation == RELU_POOL:
        width = outputs.shape[-1]
        outputs, index = F.max_pool2d(F.relu(outputs), 2, return_indices=True)
        position = index // width % 2 * 2 + index % width % 2
        choice = torch.where(outputs <= 0, _CLIPPED, position).to(torch.uint8)
    return Activated(channels_last(outputs), channels_last(choice), activation)


def backward(
    gradients: Tensor, found: Activated, images: Tensor, weight: Tensor,
    wanted: tuple[bool, bool], norm: NormGradient | None = None,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:  # fmt: skip
    """Compute what `Library.backward` computes."""
    if found.activation == RELU:
        gradients = torch.ops.aten.threshold_backward(gradients, found.outputs, 0)
    elif found.activation == RELU_POOL:
        gradients = _unpool(gradients, found.choice, images.shape[2:])
    if norm:
        a, m, b, c = norm.coefficients[:, :, None, None]
        gradients = a * gradients + b * (norm.values - m) + c
    of_images, of_weight, of_bias = torch.ops.aten.convolution_backward(
        gradients, images, weight, [weight.shape[0]], [1, 1], [1, 1], [1, 1], False, [0, 0], 1,
        [wanted[0], wanted[1], wanted[1]],
    )  # fmt: skip
    return of_images, of_weight, of_bias


def _unpool(gradients: Tensor, choice: Tensor, size: torch.Size) -> Tensor:
    unpooled = gradients.new_zeros((*gradients.shape[:2], *size))
    height, width = (side // 2 * 2 for side in size)
    for position in range(4):
        row, column = divmod(position, 2)
        unpooled[:, :, row:height:2, column:width:2] = torch.where(choice == position, gradients, 0)
    return unpooled


def channels_last(tensor: Tensor) -> Tensor:
    """Return the tensor in the kernels' memory layout, a copy if necessary."""
    return tensor.contiguous(memory_format=torch.channels_last)
