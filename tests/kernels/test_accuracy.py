"""The kernels compute convolutions: compared with float64 on random layers."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from vggnet.kernels.library import NONE, RELU, RELU_POOL
from vggnet.kernels.loading import find_processor, library_for, load_library
from vggnet.kernels.operations import Convolve
from vggnet.kernels.reference import channels_last

from .small import relative_error

# Largest relative L2 errors against float64.
FORWARD, IMAGES, WEIGHT = 5e-6, 5e-6, 3e-5

LAYOUTS = ("channels last", "channels first", "a slice", "every other row")


def lay_out(tensor: Tensor, layout: str) -> Tensor:
    """Return the same values in another memory layout."""
    if layout == "channels last":
        return channels_last(tensor)
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
        # Enough for all sizes of tiles, and for two groups of 32 channels.
        "batch": draw(st.integers(0, 3)),
        "inputs": draw(st.integers(1, 4)) if first else 8 * draw(st.integers(1, 6)),
        "outputs": 8 * draw(st.integers(1, 6)),
        "height": draw(st.integers(1, 15)),
        "width": draw(st.integers(1, 15)),
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
    """Differentiate in float64, with the decisions of ReLU and pool in float32.

    A rounding error may decide a near tie otherwise, also in torch, and the gradient follows it.
    """
    if activation == RELU:
        gradients = gradients * (outputs > 0)
    elif activation == RELU_POOL:
        unpooled = torch.zeros(
            images.shape[0], weight.shape[0], *images.shape[2:], dtype=torch.float64
        )
        for position in range(4):
            row, column = divmod(position, 2)
            part = unpooled[:, :, row::2, column::2][:, :, : choice.shape[2], : choice.shape[3]]
            part.copy_(gradients * (choice == position))
        gradients = unpooled
    inputs = [tensor.detach().double().requires_grad_() for tensor in (images, weight)]
    if bias is not None:
        inputs.append(bias.detach().double().requires_grad_())
    exact = F.conv2d(*inputs[:2], *inputs[2:], padding=1)
    return list(torch.autograd.grad(exact, inputs, gradients.double()))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(layers())
def test_any_layer_agrees_with_float64(layer: dict[str, object]) -> None:
    """The relative error is at most 5e-6 forward and backward-data, 3e-5 backward-weights."""
    torch.manual_seed(layer["seed"])
    torch.set_num_threads(layer["threads"])
    activation = layer["activation"]
    shape = (layer["batch"], layer["inputs"], layer["height"], layer["width"])
    images = lay_out(torch.randn(shape), layer["images_layout"]).requires_grad_()
    weight = torch.randn(layer["outputs"], layer["inputs"], 3, 3)
    weight = lay_out(weight, layer["weight_layout"]).requires_grad_()
    bias = torch.randn(layer["outputs"], requires_grad=True) if layer["bias"] else None

    outputs = Convolve.apply(images, weight, bias, activation)
    with torch.no_grad():
        given = (channels_last(images), weight, bias, activation)
        choice = library_for(weight).forward(*given).choice
    exact = F.conv2d(
        images.double(), weight.double(), None if bias is None else bias.double(), padding=1
    )
    exact = exact if activation == NONE else exact.relu()
    if activation == RELU_POOL:
        # torch raises an error for an empty output.
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
def test_the_sizes_of_vggs_agree_with_float64(size: int, lanes: int) -> None:
    """All image sizes in networks for 28×28 and 32×32 work with both widths of vectors."""
    if lanes not in find_processor().widths:
        pytest.skip(f"this processor has no vectors of {lanes} floats")
    library = load_library(lanes)
    torch.manual_seed(size)
    images = channels_last(torch.randn(2, 32, size, size))
    weight, bias = torch.randn(48, 32, 3, 3), torch.randn(48)
    convolved = library.forward(images, weight, bias, NONE)
    gradients = channels_last(torch.randn(2, 48, size, size))
    found = library.backward(gradients, convolved, images, weight, (True, True))
    exact = F.conv2d(images.double(), weight.double(), bias.double(), padding=1)
    assert relative_error(convolved.outputs, exact) <= FORWARD
    expected = exact_gradients(
        images, weight, bias, gradients, convolved.outputs, convolved.choice, NONE
    )
    for ours, theirs, limit in zip(found, expected, (IMAGES, WEIGHT, WEIGHT), strict=True):
        assert relative_error(ours, theirs) <= limit


def test_a_whole_batch_keeps_the_weights_accuracy() -> None:
    """128 images of 28×28, the longest sums in vgg-mini, stay within 3e-5."""
    torch.manual_seed(0)
    images, weight = torch.randn(128, 16, 28, 28), torch.randn(8, 16, 3, 3, requires_grad=True)
    gradients = torch.randn(128, 8, 28, 28)
    outputs = Convolve.apply(images, weight, None, NONE)
    (found,) = torch.autograd.grad(outputs, [weight], gradients)
    _, expected = exact_gradients(images, weight, None, gradients, outputs, outputs, NONE)
    assert relative_error(found, expected) <= WEIGHT
