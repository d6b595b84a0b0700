"""Call the compiled kernels with tensors."""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass

import torch
from torch import Tensor

from vggnet.kernels.build import Build

# What a kernel applies to a convolution's outputs; numbers as in tile_transforms.h.
NONE, RELU, RELU_POOL = 0, 1, 2

# A first layer with up to this many input channels has a direct kernel (direct.h).
MAX_DIRECT_INPUTS = 4

_DONE, _NOT_FINITE = 0, 1


@dataclass(frozen=True)
class Activated:
    """A layer's outputs, with what its backward pass needs to undo the activation."""

    outputs: Tensor
    choice: Tensor
    """Which input each pooled maximum came from, uint8; empty without pooling."""
    activation: int
    """NONE, RELU or RELU_POOL."""


@dataclass(frozen=True)
class NormGradient:
    """The backward pass of batch norm, as the convolution's backward pass applies it."""

    values: Tensor
    """The convolution's outputs z, which are batch norm's inputs, (N, K, H, W)."""
    coefficients: Tensor
    """(4, K): a, m, b, c of dz = a dy + b (z - m) + c for each channel."""


class Library:
    """The kernels for vectors of one width.

    All tensors are float32 on the CPU; images and their gradients are channels last. A method
    that may return None does so if there is no kernel or a result is NaN or infinite: then the
    caller has to use torch (reference.py), which puts these values where they belong. `moments`
    and `norm_gradient_sums` do not check their results; whatever is computed from them is checked.
    """

    def __init__(self, build: Build, lanes: int) -> None:
        self.build = build
        self.lanes = lanes
        self._process = os.getpid()
        self._loaded = ctypes.CDLL(str(build.path))

    def forward(
        self, images: Tensor, weight: Tensor, bias: Tensor | None, activation: int
    ) -> Activated | None:
        """Convolve (N, C, H, W) to (N, K, H, W), or pooled to (N, K, H // 2, W // 2)."""
        count, channels, height, width = images.shape
        sizes = (count, height, width, channels, weight.shape[0])
        found = _allocate(count, weight.shape[0], height, width, activation)
        finite = self._call(
            "vggnet_forward", images, images.stride(), weight, weight.stride(), bias,
            found.outputs, found.choice, sizes, activation,
        )  # fmt: skip
        return found if finite else None

    def backward(
        self,
        gradients: Tensor,
        found: Activated,
        images: Tensor,
        weight: Tensor,
        wanted: tuple[bool, bool],
        norm: NormGradient | None = None,
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None] | None:
        """Return the gradients of images, weight and bias.

        Args:
            gradients: Gradients of `found.outputs`, same shape.
            found: Return value of `forward`, or of `normalize` with batch norm.
            images: As passed to `forward`.
            weight: As passed to `forward`.
            wanted: Whether to compute the images' gradient, and those of weight and bias.
            norm: Batch norm between convolution and activation, if any.
        """
        count, channels, height, width = images.shape
        if wanted[0] and channels <= MAX_DIRECT_INPUTS:
            return None
        sizes = (count, height, width, channels, weight.shape[0])
        of_images = _empty(*images.shape) if wanted[0] else None
        of_weight = torch.empty_like(weight) if wanted[1] else None
        of_bias = _empty(weight.shape[0]) if wanted[1] else None
        strides = weight.stride() if of_weight is None else of_weight.stride()
        normed = (norm.values, norm.coefficients) if norm else (None, None)
        finite = self._call(
            "vggnet_backward", images, images.stride(), weight, weight.stride(), gradients,
            found.outputs, found.choice, of_images, of_weight, strides, of_bias,
            *normed, sizes, found.activation,
        )  # fmt: skip
        return (of_images, of_weight, of_bias) if finite else None

    def moments(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and biased variance of each channel of (N, K, H, W)."""
        count, channels, height, width = values.shape
        mean, variance = _empty(channels), _empty(channels)
        sizes = (count, height, width, 0, channels)
        self._call("vggnet_moments", values, mean, variance, sizes)
        return mean, variance

    def normalize(
        self, values: Tensor, scale: Tensor, shift: Tensor, activation: int
    ) -> Activated | None:
        """Return the activation of scale * values + shift; values (N, K, H, W)."""
        count, channels, height, width = values.shape
        sizes = (count, height, width, 0, channels)
        found = _allocate(count, channels, height, width, activation)
        finite = self._call(
            "vggnet_normalize", values, scale, shift, found.outputs, found.choice, sizes, activation
        )
        return found if finite else None

    def norm_gradient_sums(
        self, gradients: Tensor, found: Activated, values: Tensor, mean: Tensor
    ) -> Tensor:
        """Return the sums of dy and of dy (z - mean) over images and pixels, (2, K).

        Args:
            gradients: Gradients of `found.outputs`, from which follow batch norm's, dy.
            found: Return value of `normalize`.
            values: Batch norm's inputs z, (N, K, H, W).
            mean: Their mean, (K,).
        """
        count, channels, height, width = values.shape
        sizes = (count, height, width, 0, channels)
        sums = _empty(2, channels)
        self._call(
            "vggnet_norm_gradient_sums", gradients, found.outputs, found.choice, values, mean,
            sums, sizes, found.activation,
        )  # fmt: skip
        return sums

    def _call(self, entry: str, *arguments: Tensor | tuple[int, ...] | int | None) -> bool:
        """Call a function of winograd.cpp; return whether its results are finite."""
        # One thread in a forked child: GNU's OpenMP would wait there for the parent's threads.
        threads = torch.get_num_threads() if os.getpid() == self._process else 1
        status = getattr(self._loaded, entry)(*map(_convert, arguments), threads)
        if status not in (_DONE, _NOT_FINITE):
            raise MemoryError("not enough memory for the convolution's scratch space")
        return bool(status == _DONE)


def _convert(argument: Tensor | tuple[int, ...] | int | None) -> object:
    """Convert a tensor to a pointer, and a tuple to an array of `Index` (vector.h)."""
    if isinstance(argument, Tensor):
        return ctypes.c_void_p(argument.data_ptr())
    if isinstance(argument, tuple):
        return (ctypes.c_ssize_t * len(argument))(*argument)
    return argument


def _allocate(count: int, channels: int, height: int, width: int, activation: int) -> Activated:
    shape, choice = (count, channels, height, width), (0, 0, 0, 0)
    if activation == RELU_POOL:
        shape = choice = (count, channels, height // 2, width // 2)
    return Activated(_empty(*shape), _empty(*choice, dtype=torch.uint8), activation)


def _empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Allocate a result, images channels last, independent of torch's default types."""
    layout = torch.channels_last if len(shape) == 4 else torch.contiguous_format
    return torch.empty(shape, dtype=dtype, device="cpu", memory_format=layout)
