"""The kernels compute convolutions: compared with float64 over random layers."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from vggnet.kernels.library import NONE, RELU, RELU_POOL
from vggnet.kernels.loading import load_library
from vggnet.kernels.machine import widest_vector
from vggnet.kernels.operations import convolve

from .conftest import relative_error

# The project's promise: relative L2 errors against float64.
FORWARD, IMAGES, WEIGHT = 5e-6, 5e-6, 3e-5

LAYOUTS = ("channels last", "channels first", "a slice", "every other row")


def lay_out(tensor: Tensor, layout: str) -> Tensor:
    """Return the same numbers in another order in memory."""
    if layout == "channels last":
        return tensor.contiguous(memory_format=torch.channels_last)
    if layout == "a slice":
        return F.pad(tensor, (1, 2, 3, 0))[:, :, 3:, 1:-2]
    if layout == "every other row":
        return tensor.repeat_interleave(2, dim=2)[:, :, ::2]
    return tensor.contiguous()


@st.composite
def layers(draw: st.DrawFn) -> dict[str, object]:
    """Draw a layer, a batch and their layouts."""
    first = draw(st.booleans())
    return {
        "batch": draw(st.integers(0, 5)),
        "inputs": draw(st.integers(1, 4)) if first else 8 * draw(st.integers(1, 9)),
        "outputs": 8 * draw(st.integers(1, 9)),
        "height": draw(st.integers(1, 19)),
        "width": draw(st.integers(1, 19)),
        "activation": draw(st.sampled_from([NONE, RELU] if first else [NONE, RELU, RELU_POOL])),
        "bias": draw(st.booleans()),
        "images_layout": draw(st.sampled_from(LAYOUTS)),
        "weight_layout": draw(st.sampled_from(LAYOUTS[:2])),
        "gradients_layout": draw(st.sampled_from(LAYOUTS)),
        "threads": draw(st.integers(1, 3)),
        "seed": draw(st.integers(0, 2**16)),
    }


def exact_gradients(
    images: Tensor, weight: Tensor, bias: Tensor | None, gradients: Tensor, outputs: Tensor,
    choice: Tensor, activation: int,
) -> list[Tensor]:  # fmt: skip
    """Differentiate in float64, through the ReLU's and the pool's decisions in float32.

    A rounding error may turn a near tie, and then the gradient goes elsewhere: rightly so, and
    for torch's float32 as well.
    """
    if activation == RELU:
        gradients = gradients * (outputs > 0)
    elif activation == RELU_POOL:
        spread = torch.zeros(
            images.shape[0], weight.shape[0], *images.shape[2:], dtype=torch.float64
        )
        for position in range(4):
            row, column = divmod(position, 2)
            part = spread[:, :, row::2, column::2][:, :, : choice.shape[2], : choice.shape[3]]
            part.copy_(gradients * (choice == position))
        gradients = spread
    inputs = [tensor.detach().double().requires_grad_() for tensor in (images, weight)]
    if bias is not None:
        inputs.append(bias.detach().double().requires_grad_())
    exact = F.conv2d(*inputs[:2], *inputs[2:], padding=1)
    return list(torch.autograd.grad(exact, inputs, gradients.double()))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(layers())
def test_any_layer_agrees_with_float64(layer: dict[str, object]) -> None:
    """Forward and backward-data err by at most 5e-6, backward-weights by 3e-5."""
    torch.manual_seed(layer["seed"])
    torch.set_num_threads(layer["threads"])
    activation = layer["activation"]
    shape = (layer["batch"], layer["inputs"], layer["height"], layer["width"])
    images = lay_out(torch.randn(shape), layer["images_layout"]).requires_grad_()
    weight = torch.randn(layer["outputs"], layer["inputs"], 3, 3)
    weight = lay_out(weight, layer["weight_layout"]).requires_grad_()
    bias = torch.randn(layer["outputs"], requires_grad=True) if layer["bias"] else None

    outputs, choice = convolve(images, weight, bias, activation)
    exact = F.conv2d(
        images.double(), weight.double(), None if bias is None else bias.double(), padding=1
    )
    exact = exact if activation == NONE else exact.relu()
    if activation == RELU_POOL:
        # torch refuses to pool to nothing.
        pooled = [side // 2 for side in shape[2:]]
        exact = F.max_pool2d(exact, 2) if all(pooled) else exact[:, :, : pooled[0], : pooled[1]]
    assert outputs.shape == exact.shape
    assert relative_error(outputs, exact) <= FORWARD

    gradients = lay_out(torch.randn(outputs.shape), layer["gradients_layout"])
    inputs = [images, weight] if bias is None else [images, weight, bias]
    found = torch.autograd.grad(outputs, inputs, gradients)
    expected = exact_gradients(images, weight, bias, gradients, outputs, choice, activation)
    for name, ours, theirs in zip(("images", "weight", "bias"), found, expected, strict=False):
        limit = IMAGES if name == "images" else WEIGHT
        assert ours.shape == theirs.shape
        assert relative_error(ours, theirs) <= limit, name


@pytest.mark.parametrize("lanes", [8, 16])
@pytest.mark.parametrize("size", [28, 14, 7, 32, 16, 8, 4, 2, 1])
def test_the_familys_sizes_agree_with_float64(size: int, lanes: int) -> None:
    """Each image size of MNIST and of 32×32 works with both widths of vector."""
    if lanes > widest_vector():
        pytest.skip("this CPU has no AVX-512")
    library = load_library(lanes)
    torch.manual_seed(size)
    images = torch.randn(4, 32, size, size).contiguous(memory_format=torch.channels_last)
    weight, bias = torch.randn(48, 32, 3, 3), torch.randn(48)
    convolved = library.forward(images, weight, bias, NONE)
    gradients = torch.randn(4, 48, size, size).contiguous(memory_format=torch.channels_last)
    found = library.backward(gradients, images, weight, convolved, NONE, (True, True))
    exact = F.conv2d(images.double(), weight.double(), bias.double(), padding=1)
    assert relative_error(convolved.outputs, exact) <= FORWARD
    expected = exact_gradients(
        images, weight, bias, gradients, convolved.outputs, convolved.choice, NONE
    )
    for ours, theirs, limit in zip(found, expected, (IMAGES, WEIGHT, WEIGHT), strict=True):
        assert relative_error(ours, theirs) <= limit


def test_a_whole_batch_keeps_the_weights_accuracy() -> None:
    """128 images of 28×28, whose sums are the longest of vgg-mini, stay within 3e-5."""
    torch.manual_seed(0)
    images, weight = torch.randn(128, 32, 28, 28), torch.randn(32, 32, 3, 3, requires_grad=True)
    gradients = torch.randn(128, 32, 28, 28)
    outputs, choice = convolve(images, weight, None, NONE)
    (found,) = torch.autograd.grad(outputs, [weight], gradients)
    _, expected = exact_gradients(images, weight, None, gradients, outputs, choice, NONE)
    assert relative_error(found, expected) <= WEIGHT
