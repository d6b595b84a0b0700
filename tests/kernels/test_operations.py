"""The autograd function: gradients, repeatability, threads."""

from __future__ import annotations

import threading

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vggnet.kernels.library import NONE, RELU, RELU_POOL
from vggnet.kernels.operations import Convolve

from .small import relative_error


def layer(inputs: int = 16, outputs: int = 32, size: int = 10) -> tuple[Tensor, Tensor, Tensor]:
    """Return images, weight and bias that require gradients."""
    torch.manual_seed(0)
    return (
        torch.randn(3, inputs, size, size, requires_grad=True),
        torch.randn(outputs, inputs, 3, 3, requires_grad=True),
        torch.randn(outputs, requires_grad=True),
    )


@pytest.mark.parametrize("activation", [NONE, RELU, RELU_POOL])
def test_the_gradient_is_the_slope(activation: int) -> None:
    """The loss changes along random directions as the gradient predicts, as in gradcheck."""
    inputs = layer()
    outputs = Convolve.apply(*inputs, activation)
    target = torch.randn(outputs.shape)
    gradients = torch.autograd.grad(((outputs - target) ** 2).mean(), inputs)

    def loss(*moved: Tensor) -> float:
        exact = F.conv2d(*moved, padding=1)
        exact = exact if activation == NONE else exact.relu()
        exact = F.max_pool2d(exact, 2) if activation == RELU_POOL else exact
        return ((exact - target.double()) ** 2).mean().item()

    for position in range(3):
        doubles = [tensor.detach().double() for tensor in inputs]
        direction = torch.randn(doubles[position].shape, dtype=torch.float64)
        slope = (gradients[position].double() * direction).sum().item()
        step = 1e-6
        doubles[position] += step * direction
        above = loss(*doubles)
        doubles[position] -= 2 * step * direction
        assert (above - loss(*doubles)) / (2 * step) == pytest.approx(slope, rel=2e-3)


@pytest.mark.parametrize("batch", [0, 1])
@pytest.mark.parametrize("inputs", [1, 16])
def test_empty_and_single_batches(batch: int, inputs: int) -> None:
    """No images give no outputs and zero gradients; one image works like several."""
    images, weight, bias = layer(inputs)
    images = images.detach()[:batch]
    outputs = Convolve.apply(images, weight, bias, RELU)
    assert outputs.shape == (batch, 32, 10, 10)
    found = torch.autograd.grad(outputs.sum(), (weight, bias))
    exact = F.conv2d(images, weight, bias, padding=1).relu()
    expected = torch.autograd.grad(exact.sum(), (weight, bias))
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-3)


def test_used_twice_before_backward() -> None:
    """If a layer is used twice, its gradient is the sum of both uses."""
    images, weight, bias = layer(16, 16)
    once = Convolve.apply(images, weight, bias, RELU)
    twice = Convolve.apply(once, weight, bias, RELU)
    found = torch.autograd.grad(twice.square().sum(), (images, weight, bias))
    doubles = [tensor.detach().double().requires_grad_() for tensor in (images, weight, bias)]
    exact = F.conv2d(F.conv2d(*doubles, padding=1).relu(), *doubles[1:], padding=1).relu()
    expected = torch.autograd.grad(exact.square().sum(), doubles)
    for ours, theirs in zip(found, expected, strict=True):
        assert relative_error(ours, theirs) < 1e-4


@pytest.mark.parametrize("wanted", range(1, 8))
def test_any_subset_of_gradients(wanted: int) -> None:
    """Each subset of images, weight and bias gets the same gradients as from torch."""
    inputs = layer()
    chosen = [tensor for bit, tensor in enumerate(inputs) if wanted >> bit & 1]
    for bit, tensor in enumerate(inputs):
        tensor.requires_grad_(bool(wanted >> bit & 1))
    found = torch.autograd.grad(Convolve.apply(*inputs, NONE).square().sum(), chosen)
    expected = torch.autograd.grad(F.conv2d(*inputs, padding=1).square().sum(), chosen)
    for ours, theirs in zip(found, expected, strict=True):
        assert relative_error(ours, theirs.double()) < 1e-5


def test_images_of_a_first_layer_can_have_a_gradient() -> None:
    """If the gradient of the images themselves is requested, torch computes it."""
    images, weight, bias = layer(1)
    found = torch.autograd.grad(Convolve.apply(images, weight, bias, RELU).sum(), (images, weight))
    exact = F.conv2d(images, weight, bias, padding=1).relu().sum()
    for ours, theirs in zip(found, torch.autograd.grad(exact, (images, weight)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-3)


def test_a_second_derivative_is_refused() -> None:
    """Differentiating the gradient raises an error."""
    images, weight, bias = layer()
    loss = Convolve.apply(images, weight, bias, NONE).square().sum()
    (gradient,) = torch.autograd.grad(loss, weight, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        gradient.sum().backward()


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_runs_are_bitwise_equal(threads: int) -> None:
    """Each run with the same number of threads returns the same bits."""
    torch.set_num_threads(threads)
    inputs = layer(32, 32, 28)

    def run() -> list[Tensor]:
        outputs = Convolve.apply(*inputs, RELU_POOL)
        return [outputs, *torch.autograd.grad(outputs.square().sum(), inputs)]

    first = run()
    for _ in range(3):
        assert all(torch.equal(one, other) for one, other in zip(first, run(), strict=True))


def test_two_python_threads_at_once() -> None:
    """Overlapping calls do not share scratch memory."""
    torch.set_num_threads(2)
    inputs = [layer(16, 32, size) for size in (9, 20)]

    def run(one: tuple[Tensor, ...]) -> list[Tensor]:
        outputs = Convolve.apply(*one, RELU)
        return [outputs, *torch.autograd.grad(outputs.square().sum(), one)]

    alone = [run(one) for one in inputs]
    wrong: list[int] = []

    def repeat(which: int) -> None:
        for _ in range(30):
            same = zip(alone[which], run(inputs[which]), strict=True)
            if not all(torch.equal(one, other) for one, other in same):
                wrong.append(which)

    workers = [threading.Thread(target=repeat, args=(which,)) for which in (0, 1)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def test_no_gradient_without_grad_mode() -> None:
    """Under no_grad and inference_mode, the outputs are the same and have no graph."""
    inputs = layer()
    expected = Convolve.apply(*inputs, RELU)
    for mode in (torch.no_grad(), torch.inference_mode()):
        with mode:
            outputs = Convolve.apply(*inputs, RELU)
        assert not outputs.requires_grad
        assert torch.equal(outputs, expected)
