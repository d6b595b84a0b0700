"""NaN and infinity arrive where torch's would, and nowhere else."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from vggnet.kernels import reference
from vggnet.kernels.library import NONE, RELU, RELU_POOL, Convolved
from vggnet.kernels.operations import convolve, convolve_backward

BAD = (math.nan, math.inf, -math.inf)


def same_places(found: Tensor, expected: Tensor) -> bool:
    """Whether NaN, inf and -inf stand at the same places."""
    return all(
        torch.equal(place(found), place(expected))
        for place in (torch.isnan, torch.isposinf, torch.isneginf)
    )


def layer(inputs: int) -> tuple[Tensor, Tensor, Tensor]:
    """Make images (2, inputs, 9, 10), weight and bias."""
    torch.manual_seed(0)
    return torch.randn(2, inputs, 9, 10), torch.randn(16, inputs, 3, 3), torch.randn(16)


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("where", [0, 1, 2])
@pytest.mark.parametrize(
    ("inputs", "activation"), [(1, NONE), (1, RELU), (16, NONE), (16, RELU), (16, RELU_POOL)]
)
def test_forward(inputs: int, activation: int, where: int, bad: float) -> None:
    """One bad pixel, weight or bias spoils the outputs that torch's convolution spoils."""
    tensors = layer(inputs)
    tensors[where].view(-1)[tensors[where].numel() // 3] = bad
    found, _ = convolve(*tensors, activation)
    expected = reference.forward(*tensors, activation).outputs
    assert not torch.isfinite(expected).all() or bad == -math.inf
    assert same_places(found, expected)


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("where", ["gradients", "images", "weight"])
@pytest.mark.parametrize("activation", [NONE, RELU, RELU_POOL])
def test_backward(activation: int, where: str, bad: float) -> None:
    """One bad number spoils the gradients that torch's backward pass spoils."""
    images, weight, bias = layer(16)
    convolved = reference.forward(images, weight, bias, activation)
    gradients = torch.randn(convolved.outputs.shape)
    spoilt = {"gradients": gradients, "images": images, "weight": weight}[where]
    spoilt.view(-1)[spoilt.numel() // 3] = bad
    found = convolve_backward(
        gradients, images, weight, convolved.outputs, convolved.choice, activation, True, True
    )
    expected = reference.backward(gradients, images, weight, convolved, activation, (True, True))
    for ours, theirs in zip(found, expected, strict=True):
        assert same_places(ours, theirs)


def test_the_gradient_passes_a_nan_in_relu() -> None:
    """Where ReLU gave NaN torch lets the gradient through; so do the kernels."""
    images, weight, bias = layer(16)
    outputs = reference.forward(images, weight, bias, RELU).outputs
    outputs[0, 3, 4, 5] = math.nan
    gradients = torch.randn(outputs.shape)
    empty = torch.empty((0, 0, 0, 0), dtype=torch.uint8)
    found = convolve_backward(gradients, images, weight, outputs, empty, RELU, True, True)
    expected = reference.backward(
        gradients, images, weight, Convolved(outputs, empty), RELU, (True, True)
    )
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-3)


def test_large_values_do_not_overflow() -> None:
    """Where only Winograd's intermediate sums overflow, the result is torch's finite one."""
    images, weight = torch.full((1, 16, 8, 8), 1e37), torch.full((16, 16, 3, 3), 1e-3)
    images[..., ::2] *= -1
    found, _ = convolve(images, weight, None, NONE)
    assert torch.isfinite(found).all()
    torch.testing.assert_close(found, reference.forward(images, weight, None, NONE).outputs)
