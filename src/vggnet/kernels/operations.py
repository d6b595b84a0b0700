"""Fused convolutions as autograd functions.

Both are 3×3 convolutions with stride 1 and padding 1, in float32 on the CPU, followed by ReLU
and a 2×2 max pool if requested. They cannot be differentiated twice.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from vggnet.kernels import reference
from vggnet.kernels.library import NONE, Activated, NormGradient
from vggnet.kernels.loading import library_for
from vggnet.kernels.reference import channels_last


class Convolve(torch.autograd.Function):
    """Convolution with bias; `apply(images, weight, bias, activation)`.

    Maps (N, C, H, W) to (N, K, H, W), or pooled to (N, K, H // 2, W // 2), channels last.
    """

    @staticmethod
    def forward(
        ctx: Any, images: Tensor, weight: Tensor, bias: Tensor | None, activation: int
    ) -> Tensor:
        """Compute the outputs."""
        images = channels_last(images)
        found = library_for(weight).forward(images, weight, bias, activation)
        found = found or reference.forward(images, weight, bias, activation)
        ctx.save_for_backward(images, weight, found.outputs, found.choice)
        ctx.activation, ctx.has_bias = activation, bias is not None
        return found.outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Compute the gradients of images, weight and bias."""
        images, weight, outputs, choice = ctx.saved_tensors
        found = Activated(channels_last(outputs), channels_last(choice), ctx.activation)
        wants_images, *others, _ = ctx.needs_input_grad
        of_images, of_weight, of_bias = gradients_of(
            gradients, found, images, weight, (wants_images, any(others))
        )
        return of_images, of_weight, of_bias if ctx.has_bias else None, None


class ConvolveNormalized(torch.autograd.Function):
    """Convolution with training batch norm between it and the activation.

    `apply(images, weight, bias, gamma, beta, epsilon, activation)` returns the outputs, and the
    mean and biased variance (K,) of the convolution's outputs. The gradient of the convolution's
    outputs is computed where the convolution's backward pass reads it, and never stored.
    """

    @staticmethod
    def forward(
        ctx: Any, images: Tensor, weight: Tensor, bias: Tensor | None, gamma: Tensor,
        beta: Tensor, epsilon: float, activation: int,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        """Compute outputs, mean and variance."""
        images = channels_last(images)
        library = library_for(weight)
        convolved = library.forward(images, weight, bias, NONE)
        values = (convolved or reference.forward(images, weight, bias, NONE)).outputs
        mean, variance = library.moments(values)
        scale = gamma * torch.rsqrt(variance + epsilon)
        shift = beta - mean * scale
        found = library.normalize(values, scale, shift, activation) if convolved else None
        if found is None:
            affine = values * scale[:, None, None] + shift[:, None, None]
            found = reference.activate(affine, activation)
        ctx.save_for_backward(
            images, weight, gamma, found.outputs, found.choice, values, mean, variance
        )
        ctx.epsilon, ctx.activation, ctx.has_bias = epsilon, activation, bias is not None
        ctx.mark_non_differentiable(mean, variance)
        return found.outputs, mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradients: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        """Compute the gradients of images, weight, bias, gamma and beta."""
        images, weight, gamma, outputs, choice, values, mean, variance = ctx.saved_tensors
        gradients, values = channels_last(gradients), channels_last(values)
        found = Activated(channels_last(outputs), channels_last(choice), ctx.activation)
        sums = library_for(weight).norm_gradient_sums(gradients, found, values, mean)
        deviation = torch.rsqrt(variance + ctx.epsilon)
        scale = gamma * deviation
        of_mean, of_distance = sums / (values.numel() // values.shape[1])
        coefficients = torch.stack(
            [scale, mean, -scale * of_distance * deviation.square(), -scale * of_mean]
        )
        of_images, of_weight, of_bias = gradients_of(
            gradients, found, images, weight, (ctx.needs_input_grad[0], True),
            NormGradient(values, coefficients),
        )  # fmt: skip
        of_bias = of_bias if ctx.has_bias else None
        return of_images, of_weight, of_bias, sums[1] * deviation, sums[0], None, None


def gradients_of(
    gradients: Tensor, found: Activated, images: Tensor, weight: Tensor,
    wanted: tuple[bool, bool], norm: NormGradient | None = None,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:  # fmt: skip
    """Return the gradients of images, weight and bias; see `Library.backward`."""
    # Hooks on saved tensors, such as `save_on_cpu`, may return them in another layout.
    given = (channels_last(gradients), found, channels_last(images), weight, wanted, norm)
    return library_for(weight).backward(*given) or reference.backward(*given)
