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
_POINTER, _INT = ctypes.c_void_p, ctypes.c_int


@dataclass(frozen=True)
class Convolved:
    """What a convolution returns and what its backward pass will need."""

    outputs: Tensor
    choice: Tensor
    """Where each pooled maximum came from, uint8; empty without pooling."""


class Library:
    """The kernels for vectors of one width.

    Every method takes and gives float32 on the CPU, channels last, and returns None where
    a result is NaN or infinite: then the caller asks torch, which puts them where they belong.
    """

    def __init__(self, build: Build, lanes: int) -> None:
        self.build = build
        self.lanes = lanes
        self._process = os.getpid()
        loaded = ctypes.CDLL(str(build.path))
        signatures = {
            "vggnet_forward": [_POINTER] * 7 + [_INT] * 2,
            "vggnet_backward": [_POINTER] * 11 + [_INT] * 2,
            "vggnet_direct_forward": [_POINTER] * 7 + [_INT] * 2,
            "vggnet_direct_backward": [_POINTER] * 8 + [_INT] * 2,
        }
        for name, arguments in signatures.items():
            getattr(loaded, name).argtypes = arguments
        self._forward = loaded.vggnet_forward
        self._backward = loaded.vggnet_backward
        self._direct_forward = loaded.vggnet_direct_forward
        self._direct_backward = loaded.vggnet_direct_backward

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
        shrink = 2 if activation == RELU_POOL else 1
        shape = (count, weight.shape[0], height // shrink, width // shrink)
        outputs = torch.empty(shape, memory_format=torch.channels_last)
        direct = channels <= MOST_DIRECT_INPUTS
        choice = torch.empty(
            shape if activation == RELU_POOL else (0, 0, 0, 0),
            dtype=torch.uint8,
            memory_format=torch.channels_last,
        )
        sizes = _Sizes(count, height, width, channels, weight.shape[0])
        strides = _Strides(*weight.stride())
        if direct:
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
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None] | None:
        """Return the gradients of images, weight and bias.

        Args:
            gradients: Of `convolved.outputs`, same shape.
            images: As given to `forward`.
            weight: As given to `forward`.
            convolved: What `forward` returned.
            activation: As given to `forward`.
            wanted: Whether the images' gradient is wanted, and the weight's and bias's.
        """
        count, channels, height, width = images.shape
        sizes = _Sizes(count, height, width, channels, weight.shape[0])
        of_weight = torch.empty_like(weight) if wanted[1] else None
        of_bias = torch.empty(weight.shape[0]) if wanted[1] else None
        strides = _Strides(*(weight if of_weight is None else of_weight).stride())
        if channels <= MOST_DIRECT_INPUTS:
            status = self._direct_backward(
                images.data_ptr(), _Strides(*images.stride()), gradients.data_ptr(),
                convolved.outputs.data_ptr(), _address(of_weight), strides, _address(of_bias),
                sizes, activation, self.threads(),
            )  # fmt: skip
            return (None, of_weight, of_bias) if _finite(status) else None
        of_images = (
            torch.empty(images.shape, memory_format=torch.channels_last) if wanted[0] else None
        )
        status = self._backward(
            images.data_ptr(), weight.data_ptr(), _Strides(*weight.stride()),
            gradients.data_ptr(), convolved.outputs.data_ptr(), convolved.choice.data_ptr(),
            _address(of_images), _address(of_weight), strides, _address(of_bias), sizes,
            activation, self.threads(),
        )  # fmt: skip
        return (of_images, of_weight, of_bias) if _finite(status) else None


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _finite(status: int) -> bool:
    if status not in (_DONE, _NOT_FINITE):
        raise MemoryError("no memory for the convolution's scratch space")
    return status == _DONE
