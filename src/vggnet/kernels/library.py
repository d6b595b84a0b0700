"""Call the compiled kernels on tensors."""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass

import torch
from torch import Tensor

from vggnet.kernels.build import Build

# The activations that a convolution's kernel can apply, as numbered in tile_transforms.h.
NONE, RELU, RELU_POOL = 0, 1, 2

# A first layer of up to so many input channels has a direct kernel (direct.h).
MOST_DIRECT_INPUTS = 4

_DONE, _NOT_FINITE = 0, 1

_Sizes = ctypes.c_ssize_t * 5
_Strides = ctypes.c_ssize_t * 4
_POINTER, _SIZE, _INT = ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int


@dataclass(frozen=True)
class Convolved:
    """What a convolution returns and what its backward pass will need."""

    outputs: Tensor
    choice: Tensor
    """Where each pooled maximum came from, uint8; empty without pooling."""


@dataclass(frozen=True)
class NormGradient:
    """The backward pass of batch norm, as the convolution's backward pass applies it."""

    values: Tensor
    """What the convolution returned and batch norm took, z, (N, K, H, W)."""
    coefficients: Tensor
    """(4, K): a, m, b, c of dz = a dy + b (z - m) + c for each channel."""


class Library:
    """The kernels for vectors of one width.

    Every method takes and gives float32 on the CPU, channels last. Those that may return None do
    so where a result is NaN or infinite: then the caller asks torch, which puts them where they
    belong. Moments and sums for batch norm are what they are; what is made of them is looked at.
    """

    def __init__(self, build: Build, lanes: int) -> None:
        self.build = build
        self.lanes = lanes
        self._process = os.getpid()
        loaded = ctypes.CDLL(str(build.path))
        signatures = {
            "vggnet_forward": [_POINTER] * 7 + [_INT] * 2,
            "vggnet_backward": [_POINTER] * 13 + [_INT] * 2,
            "vggnet_direct_forward": [_POINTER] * 7 + [_INT] * 2,
            "vggnet_direct_backward": [_POINTER] * 11 + [_INT] * 2,
            "vggnet_moments": [_POINTER, _SIZE, _SIZE, _POINTER, _POINTER, _INT],
            "vggnet_normalize": [_POINTER] * 6 + [_INT] * 2,
            "vggnet_norm_gradient_sums": [_POINTER] * 7 + [_INT] * 2,
        }
        for name, arguments in signatures.items():
            getattr(loaded, name).argtypes = arguments
        self._forward = loaded.vggnet_forward
        self._backward = loaded.vggnet_backward
        self._direct_forward = loaded.vggnet_direct_forward
        self._direct_backward = loaded.vggnet_direct_backward
        self._moments = loaded.vggnet_moments
        self._normalize = loaded.vggnet_normalize
        self._norm_gradient_sums = loaded.vggnet_norm_gradient_sums

    def threads(self) -> int:
        """Return how many threads a call may use.

        One in a forked child: GNU's OpenMP would wait there for the parent's threads.
        """
        return torch.get_num_threads() if os.getpid() == self._process else 1

    def forward(
        self, images: Tensor, weight: Tensor, bias: Tensor | None, activation: int
    ) -> Convolved | None:
        """Convolve (N, C, H, W) to (N, K, H, W), or pooled to (N, K, H // 2, W // 2)."""
        count, channels, height, width = images.shape
        outputs, choice = _results(count, weight.shape[0], height, width, activation)
        sizes = _Sizes(count, height, width, channels, weight.shape[0])
        strides = _Strides(*weight.stride())
        if channels <= MOST_DIRECT_INPUTS:
            status = self._direct_forward(
                images.data_ptr(), _Strides(*images.stride()), weight.data_ptr(), strides,
                _address(bias), outputs.data_ptr(), sizes, activation, self.threads(),
            )  # fmt: skip
        else:
            status = self._forward(
                images.data_ptr(), weight.data_ptr(), strides, _address(bias),
                outputs.data_ptr(), choice.data_ptr(), sizes, activation, self.threads(),
            )  # fmt: skip
        return Convolved(outputs, choice) if _finite(status) else None

    def backward(
        self,
        gradients: Tensor,
        images: Tensor,
        weight: Tensor,
        convolved: Convolved,
        activation: int,
        wanted: tuple[bool, bool],
        norm: NormGradient | None = None,
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None] | None:
        """Return the gradients of images, weight and bias.

        Args:
            gradients: Of `convolved.outputs`, same shape.
            images: As given to `forward`.
            weight: As given to `forward`.
            convolved: What `forward` returned.
            activation: As given to `forward`.
            wanted: Whether the images' gradient is wanted, and the weight's and bias's.
            norm: Batch norm between convolution and activation, if there was one.
        """
        normed = (None, None) if norm is None else (norm.values, norm.coefficients)
        norm_addresses = tuple(_address(tensor) for tensor in normed)
        count, channels, height, width = images.shape
        sizes = _Sizes(count, height, width, channels, weight.shape[0])
        of_weight = torch.empty_like(weight) if wanted[1] else None
        of_bias = _empty(weight.shape[0]) if wanted[1] else None
        strides = _Strides(*(weight if of_weight is None else of_weight).stride())
        if channels <= MOST_DIRECT_INPUTS:
            status = self._direct_backward(
                images.data_ptr(), _Strides(*images.stride()), gradients.data_ptr(),
                convolved.outputs.data_ptr(), convolved.choice.data_ptr(), _address(of_weight),
                strides, _address(of_bias), *norm_addresses, sizes, activation, self.threads(),
            )  # fmt: skip
            return (None, of_weight, of_bias) if _finite(status) else None
        of_images = _empty(*images.shape) if wanted[0] else None
        status = self._backward(
            images.data_ptr(), weight.data_ptr(), _Strides(*weight.stride()),
            gradients.data_ptr(), convolved.outputs.data_ptr(), convolved.choice.data_ptr(),
            _address(of_images), _address(of_weight), strides, _address(of_bias),
            *norm_addresses, sizes, activation, self.threads(),
        )  # fmt: skip
        return (of_images, of_weight, of_bias) if _finite(status) else None

    def moments(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and biased variance of each channel of (N, K, H, W)."""
        channels = values.shape[1]
        mean, variance = _empty(channels), _empty(channels)
        self._moments(
            values.data_ptr(), values.numel() // channels, channels, mean.data_ptr(),
            variance.data_ptr(), self.threads(),
        )  # fmt: skip
        return mean, variance

    def normalize(
        self, values: Tensor, scale: Tensor, shift: Tensor, activation: int
    ) -> Convolved | None:
        """Return scale * values + shift through the activation; values (N, K, H, W)."""
        count, channels, height, width = values.shape
        outputs, choice = _results(count, channels, height, width, activation)
        status = self._normalize(
            values.data_ptr(), scale.data_ptr(), shift.data_ptr(), outputs.data_ptr(),
            choice.data_ptr(), _Sizes(count, height, width, 0, channels), activation,
            self.threads(),
        )  # fmt: skip
        return Convolved(outputs, choice) if _finite(status) else None

    def norm_gradient_sums(
        self,
        gradients: Tensor,
        convolved: Convolved,
        values: Tensor,
        mean: Tensor,
        activation: int,
    ) -> Tensor:
        """Sum dy and dy (z - mean) over images and pixels: (2, K).

        dy is the gradient of what batch norm returned, `gradients` that of the activation.
        """
        count, channels, height, width = values.shape
        sums = _empty(2, channels)
        self._norm_gradient_sums(
            gradients.data_ptr(), convolved.outputs.data_ptr(), convolved.choice.data_ptr(),
            values.data_ptr(), mean.data_ptr(), sums.data_ptr(),
            _Sizes(count, height, width, 0, channels), activation, self.threads(),
        )  # fmt: skip
        return sums


def _results(
    count: int, channels: int, height: int, width: int, activation: int
) -> tuple[Tensor, Tensor]:
    """Allocate what a layer returns, and what undoes its pool."""
    pooled = activation == RELU_POOL
    shape = (
        (count, channels, height // 2, width // 2) if pooled else (count, channels, height, width)
    )
    return _empty(*shape), _empty(*(shape if pooled else (0, 0, 0, 0)), dtype=torch.uint8)


def _empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Allocate what a kernel writes, images channels last, whatever torch's defaults are."""
    layout = torch.channels_last if len(shape) == 4 else torch.contiguous_format
    return torch.empty(shape, dtype=dtype, device="cpu", memory_format=layout)


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _finite(status: int) -> bool:
    if status not in (_DONE, _NOT_FINITE):
        raise MemoryError("no memory for the convolution's scratch space")
    return status == _DONE
