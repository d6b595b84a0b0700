"""Convolution with training batch norm: compared with float64 and torch."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vggnet.kernels.library import NONE, RELU, RELU_POOL
from vggnet.kernels.loading import library_for
from vggnet.kernels.operations import ConvolveNormalized
from vggnet.kernels.reference import channels_last

from .small import relative_error

EPSILON = 1e-5


def tensors(inputs: int, outputs: int, height: int, width: int, batch: int = 3) -> list[Tensor]:
    """Return images, weight, bias, gamma and beta, which require gradients."""
    made = [
        torch.randn(batch, inputs, height, width), torch.randn(outputs, inputs, 3, 3),
        torch.randn(outputs), torch.rand(outputs) + 0.5, torch.randn(outputs),
    ]  # fmt: skip
    return [tensor.requires_grad_(inputs > 4 or at > 0) for at, tensor in enumerate(made)]


@torch.no_grad()
def choose(given: list[Tensor], activation: int) -> Tensor:
    """Return where the pooled maxima come from, by the kernels' float32."""
    images, weight, bias, gamma, beta = given
    library = library_for(weight)
    values = library.forward(channels_last(images), weight, bias, NONE).outputs
    mean, variance = library.moments(values)
    scale = gamma * torch.rsqrt(variance + EPSILON)
    return library.normalize(values, scale, beta - mean * scale, activation).choice


def exact(given: list[Tensor], choice: Tensor, outputs: Tensor, activation: int) -> Tensor:
    """Compute in float64, with the decisions of ReLU and pool in float32."""
    images, weight, bias, gamma, beta = given
    values = F.conv2d(images, weight, bias, padding=1)
    normed = F.batch_norm(values, None, None, gamma, beta, training=True, eps=EPSILON)
    if activation == RELU:
        return normed * (outputs > 0)
    if activation == RELU_POOL:
        height, width = (side // 2 * 2 for side in normed.shape[2:])
        parts = [normed[:, :, k // 2 : height : 2, k % 2 : width : 2] for k in range(4)]
        return sum(part * (choice == k) for k, part in enumerate(parts))
    return normed


@settings(max_examples=40, deadline=None)
@given(
    first=st.booleans(), inputs=st.integers(1, 4), outputs=st.integers(1, 6),
    height=st.integers(2, 15), width=st.integers(2, 15),
    activation=st.sampled_from([NONE, RELU, RELU_POOL]), seed=st.integers(0, 2**16),
    threads=st.integers(1, 3),
)  # fmt: skip
def test_any_layer_agrees_with_float64(
    first: bool, inputs: int, outputs: int, height: int, width: int, activation: int, seed: int,
    threads: int,
) -> None:  # fmt: skip
    """The relative error is at most 5e-6 for outputs and 3e-5 for gradients.

    The gradient of the convolution's bias is zero up to rounding: batch norm subtracts the mean.
    """
    torch.manual_seed(seed)
    torch.set_num_threads(threads)
    given = tensors(inputs if first else 8 * inputs, 8 * outputs, height, width)
    found, _, _ = ConvolveNormalized.apply(*given, EPSILON, activation)
    doubles = [tensor.detach().double().requires_grad_(tensor.requires_grad) for tensor in given]
    expected = exact(doubles, choose(given, activation), found, activation)
    assert relative_error(found, expected) <= 5e-6
    gradients = torch.randn(found.shape)
    wanted = [at for at in range(5) if given[at].requires_grad and at != 2]
    ours = torch.autograd.grad(found, [given[at] for at in wanted], gradients)
    theirs = torch.autograd.grad(expected, [doubles[at] for at in wanted], gradients.double())
    for one, other in zip(ours, theirs, strict=True):
        assert relative_error(one, other) <= 3e-5


def test_a_channel_far_from_zero_keeps_its_variance() -> None:
    """If the mean is a thousand times the deviation, the variance is still that of float64."""
    torch.manual_seed(0)
    given = tensors(16, 16, 12, 12, batch=16)
    with torch.no_grad():
        given[2] += 1e4
    _, mean, variance = ConvolveNormalized.apply(*given, EPSILON, NONE)
    images, weight, bias, _, _ = (tensor.detach() for tensor in given)
    values = library_for(weight).forward(channels_last(images), weight, bias, NONE).outputs
    doubles = values.double().transpose(0, 1).flatten(1)
    torch.testing.assert_close(mean.double(), doubles.mean(1), rtol=1e-6, atol=0)
    torch.testing.assert_close(variance.double(), doubles.var(1, unbiased=False), rtol=1e-5, atol=0)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("activation", [NONE, RELU, RELU_POOL])
def test_a_bad_pixel_affects_its_channels(activation: int, bad: float) -> None:
    """A pixel that is not finite makes the same outputs and gradients NaN as in torch."""
    torch.manual_seed(0)
    given = tensors(16, 16, 8, 8)
    with torch.no_grad():
        given[0][1, 2, 3, 4] = bad
    found, _, _ = ConvolveNormalized.apply(*given, EPSILON, activation)
    images, weight, bias, gamma, beta = given
    expected = F.conv2d(images, weight, bias, padding=1)
    expected = F.batch_norm(expected, None, None, gamma, beta, training=True, eps=EPSILON)
    expected = expected if activation == NONE else expected.relu()
    expected = F.max_pool2d(expected, 2) if activation == RELU_POOL else expected
    assert torch.equal(found.isfinite(), expected.isfinite())
    ours = torch.autograd.grad(found.sum(), given)
    theirs = torch.autograd.grad(expected.sum(), given)
    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(one.isfinite(), other.isfinite())
