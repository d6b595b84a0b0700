"""NaN and infinity appear exactly where torch's convolutions put them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from vggnet.kernels import reference
from vggnet.kernels.library import NONE, RELU, RELU_POOL, Activated
from vggnet.kernels.operations import Convolve, gradients_of

BAD = (math.nan, math.inf, -math.inf)


def same_places(found: Tensor, expected: Tensor) -> bool:
    """Whether NaN, inf and -inf are at the same places."""
    return all(
        torch.equal(place(found), place(expected))
        for place in (torch.isnan, torch.isposinf, torch.isneginf)
    )


def layer(inputs: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return images (2, inputs, 9, 10), weight and bias."""
    torch.manual_seed(0)
    return torch.randn(2, inputs, 9, 10), torch.randn(16, inputs, 3, 3), torch.randn(16)


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("where", [0, 1, 2])
@pytest.mark.parametrize(
    ("inputs", "activation"), [(1, NONE), (1, RELU), (16, NONE), (16, RELU), (16, RELU_POOL)]
)
def test_forward(inputs: int, activation: int, where: int, bad: float) -> None:
    """One bad pixel, weight or bias affects the same outputs as in torch's convolution."""
    tensors = layer(inputs)
    tensors[where].view(-1)[tensors[where].numel() // 3] = bad
    found = Convolve.apply(*tensors, activation)
    expected = reference.forward(*tensors, activation).outputs
    assert not torch.isfinite(expected).all() or bad == -math.inf
    assert same_places(found, expected)


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("where", ["gradients", "images", "weight"])
@pytest.mark.parametrize("activation", [NONE, RELU, RELU_POOL])
def test_backward(activation: int, where: str, bad: float) -> None:
    """One bad number affects the same gradients as in torch's backward pass."""
    images, weight, bias = layer(16)
    convolved = reference.forward(images, weight, bias, activation)
    gradients = torch.randn(convolved.outputs.shape)
    affected = {"gradients": gradients, "images": images, "weight": weight}[where]
    affected.view(-1)[affected.numel() // 3] = bad
    given = (gradients, convolved, images, weight, (True, True))
    for ours, theirs in zip(gradients_of(*given), reference.backward(*given), strict=True):
        assert same_places(ours, theirs)


def test_the_gradient_passes_a_nan_in_relu() -> None:
    """Where the output of ReLU is NaN, the gradient passes, as in torch."""
    images, weight, bias = layer(16)
    outputs = reference.forward(images, weight, bias, RELU).outputs
    outputs[0, 3, 4, 5] = math.nan
    empty = torch.empty((0, 0, 0, 0), dtype=torch.uint8)
    convolved = Activated(outputs, empty, RELU)
    given = (torch.randn(outputs.shape), convolved, images, weight, (True, True))
    for ours, theirs in zip(gradients_of(*given), reference.backward(*given), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-3)


def test_large_values_do_not_overflow() -> None:
    """If only Winograd's intermediate sums overflow, the result is torch's finite one."""
    images, weight = torch.full((1, 16, 8, 8), 1e37), torch.full((16, 16, 3, 3), 1e-3)
    images[..., ::2] *= -1
    found = Convolve.apply(images, weight, None, NONE)
    assert torch.isfinite(found).all()
    torch.testing.assert_close(found, reference.forward(images, weight, None, NONE).outputs)
