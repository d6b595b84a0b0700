"""Convolutions as torch operations: gradients, and shapes for torch.compile and export.

`vggnet::convolve` is a 3×3 convolution with stride 1 and padding 1, its bias, and perhaps
ReLU and a 2×2 max pool; float32 on the CPU.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vggnet.kernels import reference
from vggnet.kernels.library import MOST_DIRECT_INPUTS, RELU_POOL, Convolved
from vggnet.kernels.loading import library_for
from vggnet.kernels.registration import operation, refuse_derivative


def empty_results(images: Tensor, weight: Tensor, activation: int) -> tuple[Tensor, Tensor]:
    """Return tensors of the results' shapes and layouts, for tracing."""
    count, _, height, width = images.shape
    pooled = activation == RELU_POOL
    shrink = 2 if pooled else 1
    shape = (count, weight.shape[0], height // shrink, width // shrink)
    outputs = images.new_empty(shape).contiguous(memory_format=torch.channels_last)
    choice = images.new_empty(shape if pooled else (0, 0, 0, 0), dtype=torch.uint8)
    return outputs, choice.contiguous(memory_format=torch.channels_last)


@operation("vggnet::convolve")
def convolve(
    images: Tensor, weight: Tensor, bias: Tensor | None, activation: int
) -> tuple[Tensor, Tensor]:
    """Convolve (N, C, H, W) to (N, K, H, W), or pooled to (N, K, H // 2, W // 2).

    Returns:
        The outputs, channels last, and what the backward pass needs to undo a pool.
    """
    images = images.contiguous(memory_format=torch.channels_last)
    library = library_for(weight)
    found = library.forward(images, weight, bias, activation)
    if found is None:
        found = reference.forward(images, weight, bias, activation)
    return found.outputs, found.choice


def _shape_of_convolve(
    images: Tensor, weight: Tensor, bias: Tensor | None, activation: int
) -> tuple[Tensor, Tensor]:
    return empty_results(images, weight, activation)


@operation("vggnet::convolve_backward")
def convolve_backward(
    gradients: Tensor,
    images: Tensor,
    weight: Tensor,
    outputs: Tensor,
    choice: Tensor,
    activation: int,
    wants_images: bool,
    wants_weight: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of images, weight and bias; empty where not wanted."""
    last = torch.channels_last
    gradients = gradients.contiguous(memory_format=last)
    images = images.contiguous(memory_format=last)
    # Hooks on saved tensors, as `save_on_cpu`, may give them back in another layout.
    convolved = Convolved(
        outputs.contiguous(memory_format=last), choice.contiguous(memory_format=last)
    )
    direct = weight.shape[1] <= MOST_DIRECT_INPUTS
    wanted = (wants_images, wants_weight)
    found = None
    # The direct kernel is for a network's first layer, whose images need no gradient.
    if not (direct and wants_images):
        library = library_for(weight)
        found = library.backward(gradients, images, weight, convolved, activation, wanted)
    if found is None:
        found = reference.backward(gradients, images, weight, convolved, activation, wanted)
    of_images, of_weight, of_bias = (
        gradient if gradient is not None else images.new_empty(0) for gradient in found
    )
    return of_images, of_weight, of_bias


def _shape_of_convolve_backward(
    gradients: Tensor,
    images: Tensor,
    weight: Tensor,
    outputs: Tensor,
    choice: Tensor,
    activation: int,
    wants_images: bool,
    wants_weight: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    nothing = images.new_empty(0)
    of_images = torch.empty_like(images, memory_format=torch.channels_last)
    return (
        of_images if wants_images else nothing,
        torch.empty_like(weight) if wants_weight else nothing,
        images.new_empty(weight.shape[0]) if wants_weight else nothing,
    )


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    images, weight, bias, activation = inputs
    ctx.save_for_backward(images, weight, *output)
    ctx.activation = activation
    ctx.has_bias = bias is not None
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _backward(
    ctx: Any, gradients: Tensor | None, _: Tensor | None
) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
    if gradients is None:
        return None, None, None, None
    wants_images, wants_weight, wants_bias, _ = ctx.needs_input_grad
    of_images, of_weight, of_bias = convolve_backward(
        gradients, *ctx.saved_tensors, ctx.activation, wants_images, wants_weight or wants_bias
    )
    return (
        of_images if wants_images else None,
        of_weight if wants_weight else None,
        of_bias if wants_bias else None,
        None,
    )


torch.library.register_fake("vggnet::convolve", _shape_of_convolve)
torch.library.register_fake("vggnet::convolve_backward", _shape_of_convolve_backward)
refuse_derivative("vggnet::convolve_backward")
torch.library.register_autograd("vggnet::convolve", _backward, setup_context=_setup_context)
