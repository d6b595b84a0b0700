"""The same operations by torch: what the kernels are tested against, and what stands in
for them where a result is not finite.
"""  # noqa: D205

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vggnet.kernels.library import RELU, RELU_POOL, Convolved

# As in tile_transforms.h: ReLU made the maximum zero.
_CLIPPED = 4


def forward(images: Tensor, weight: Tensor, bias: Tensor | None, activation: int) -> Convolved:
    """Convolve (N, C, H, W) to (N, K, H, W), or pooled to (N, K, H // 2, W // 2)."""
    return activate(F.conv2d(images, weight, bias, padding=1), activation)


def activate(outputs: Tensor, activation: int) -> Convolved:
    """Apply ReLU and pool to (N, K, H, W)."""
    choice = torch.empty((0, 0, 0, 0), dtype=torch.uint8, device=outputs.device)
    if activation == RELU:
        outputs = F.relu(outputs)
    elif activation == RELU_POOL:
        width = outputs.shape[-1]
        outputs, index = F.max_pool2d(F.relu(outputs), 2, return_indices=True)
        position = index // width % 2 * 2 + index % width % 2
        choice = torch.where(outputs <= 0, _CLIPPED, position).to(torch.uint8)
    return Convolved(_channels_last(outputs), _channels_last(choice))


def backward(
    gradients: Tensor,
    images: Tensor,
    weight: Tensor,
    convolved: Convolved,
    activation: int,
    wanted: tuple[bool, bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Return the gradients of images, weight and bias; see `Library.backward`."""
    gradients = undo_activation(gradients, convolved, activation, images.shape[2:])
    of_images, of_weight, of_bias = torch.ops.aten.convolution_backward(
        gradients, images, weight, [weight.shape[0]], [1, 1], [1, 1], [1, 1], False, [0, 0], 1,
        [wanted[0], wanted[1], wanted[1]],
    )  # fmt: skip
    return of_images, of_weight, of_bias


def undo_activation(
    gradients: Tensor, convolved: Convolved, activation: int, size: torch.Size
) -> Tensor:
    """Return the gradient of what the activation took, (N, K, *size)."""
    if activation == RELU:
        taken: Tensor = torch.ops.aten.threshold_backward(gradients, convolved.outputs, 0)
        return taken
    if activation == RELU_POOL:
        return _unpool(gradients, convolved.choice, size)
    return gradients


def _unpool(gradients: Tensor, choice: Tensor, size: torch.Size) -> Tensor:
    count, channels, height, width = *gradients.shape[:2], *size
    spread = gradients.new_zeros((count, channels, height, width))
    even_height, even_width = height // 2 * 2, width // 2 * 2
    for position in range(4):
        row, column = divmod(position, 2)
        spread[:, :, row:even_height:2, column:even_width:2] = torch.where(
            choice == position, gradients, 0
        )
    return spread


def _channels_last(tensor: Tensor) -> Tensor:
    return tensor.contiguous(memory_format=torch.channels_last)
