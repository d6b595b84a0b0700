"""A convolution with training batch norm behind it, as one torch operation.

`vggnet::convolve_normalized` is a 3×3 convolution, batch norm over the batch's own mean
and variance, and perhaps ReLU and a 2×2 max pool. The gradient of the convolution's
outputs is computed where the convolution's backward pass reads it and never stored.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vggnet.kernels import reference
from vggnet.kernels.library import MOST_DIRECT_INPUTS, NONE, Convolved, NormGradient
from vggnet.kernels.loading import library_for
from vggnet.kernels.operations import empty_results
from vggnet.kernels.registration import operation, refuse_derivative


@operation("vggnet::convolve_normalized")
def convolve_normalized(
    images: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    gamma: Tensor,
    beta: Tensor,
    epsilon: float,
    activation: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Convolve (N, C, H, W) to (N, K, H, W), or pooled to (N, K, H // 2, W // 2).

    Returns:
        The outputs, what undoes the pool, the convolution's outputs z (N, K, H, W), and
        their mean and biased variance (K,).
    """
    images = images.contiguous(memory_format=torch.channels_last)
    library = library_for(weight)
    found = library.forward(images, weight, bias, NONE)
    convolved = found or reference.forward(images, weight, bias, NONE)
    values = convolved.outputs
    mean, variance = library.moments(values)
    scale = gamma * torch.rsqrt(variance + epsilon)
    shift = beta - mean * scale
    normed = library.normalize(values, scale, shift, activation) if found else None
    if normed is None:
        affine = values * scale[:, None, None] + shift[:, None, None]
        normed = reference.activate(affine, activation)
    return normed.outputs, normed.choice, values, mean, variance


def _shape_of_convolve_normalized(
    images: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    gamma: Tensor,
    beta: Tensor,
    epsilon: float,
    activation: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    values, _ = empty_results(images, weight, NONE)
    return (
        *empty_results(images, weight, activation),
        values,
        torch.empty_like(gamma),
        torch.empty_like(gamma),
    )


@operation("vggnet::convolve_normalized_backward")
def convolve_normalized_backward(
    gradients: Tensor,
    images: Tensor,
    weight: Tensor,
    gamma: Tensor,
    outputs: Tensor,
    choice: Tensor,
    values: Tensor,
    mean: Tensor,
    variance: Tensor,
    epsilon: float,
    activation: int,
    wants_images: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of images (empty if not wanted), weight, bias, gamma and beta."""
    last = torch.channels_last
    gradients = gradients.contiguous(memory_format=last)
    images, values, outputs, choice = (
        tensor.contiguous(memory_format=last) for tensor in (images, values, outputs, choice)
    )
    convolved = Convolved(outputs, choice)
    library = library_for(weight)
    sums = library.norm_gradient_sums(gradients, convolved, values, mean, activation)
    deviation = torch.rsqrt(variance + epsilon)
    scale = gamma * deviation
    of_mean, of_distance = sums / (values.numel() // values.shape[1])
    coefficients = torch.stack(
        [scale, mean, -scale * of_distance * deviation.square(), -scale * of_mean]
    )
    found = None
    if not (wants_images and weight.shape[1] <= MOST_DIRECT_INPUTS):
        norm = NormGradient(values, coefficients)
        wanted = (wants_images, True)
        found = library.backward(gradients, images, weight, convolved, activation, wanted, norm)
    if found is None:
        of_normed = reference.undo_activation(gradients, convolved, activation, values.shape[2:])
        a, m, b, c = coefficients[:, :, None, None]
        of_values = a * of_normed + b * (values - m) + c
        found = reference.backward(of_values, images, weight, convolved, NONE, (wants_images, True))
    of_images, of_weight, of_bias = (
        gradient if gradient is not None else images.new_empty(0) for gradient in found
    )
    return of_images, of_weight, of_bias, sums[1] * deviation, sums[0].clone()


def _shape_of_convolve_normalized_backward(
    gradients: Tensor,
    images: Tensor,
    weight: Tensor,
    gamma: Tensor,
    outputs: Tensor,
    choice: Tensor,
    values: Tensor,
    mean: Tensor,
    variance: Tensor,
    epsilon: float,
    activation: int,
    wants_images: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    of_images = torch.empty_like(images, memory_format=torch.channels_last)
    return (
        of_images if wants_images else images.new_empty(0),
        torch.empty_like(weight),
        torch.empty_like(gamma),
        torch.empty_like(gamma),
        torch.empty_like(gamma),
    )


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    images, weight, bias, gamma, _, epsilon, activation = inputs
    outputs, choice, values, mean, variance = output
    ctx.save_for_backward(images, weight, gamma, outputs, choice, values, mean, variance)
    ctx.mark_non_differentiable(choice, values, mean, variance)
    ctx.set_materialize_grads(False)
    ctx.settings = (epsilon, activation)
    ctx.has_bias = bias is not None


def _backward(ctx: Any, gradients: Tensor | None, *_: Tensor | None) -> tuple[Tensor | None, ...]:
    if gradients is None:
        return (None,) * 7
    of_images, of_weight, of_bias, of_gamma, of_beta = convolve_normalized_backward(
        gradients, *ctx.saved_tensors, *ctx.settings, ctx.needs_input_grad[0]
    )
    found = (of_images, of_weight, of_bias if ctx.has_bias else None, of_gamma, of_beta)
    wanted = zip(found, ctx.needs_input_grad[:5], strict=True)
    return (*(gradient if needed else None for gradient, needed in wanted), None, None)


torch.library.register_fake("vggnet::convolve_normalized", _shape_of_convolve_normalized)
torch.library.register_fake(
    "vggnet::convolve_normalized_backward", _shape_of_convolve_normalized_backward
)
refuse_derivative("vggnet::convolve_normalized_backward")
torch.library.register_autograd(
    "vggnet::convolve_normalized", _backward, setup_context=_setup_context
)
