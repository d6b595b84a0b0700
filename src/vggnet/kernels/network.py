"""A VGG network whose convolutions run in the compiled kernels.

A kernel computes a convolution together with the batch norm, ReLU and pool that follow it, so
the network is divided into steps of one or more layers. Torch computes layers without a kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vggnet.errors import KernelError
from vggnet.kernels.library import MAX_DIRECT_INPUTS, NONE, RELU, RELU_POOL
from vggnet.kernels.loading import find_processor, lanes_for, library_for
from vggnet.kernels.operations import Convolve, ConvolveNormalized
from vggnet.model.vgg import VGG

# Typed here: torch annotates `apply` since 2.14 only.
_convolve: Callable[..., Any] = Convolve.apply
_convolve_normalized: Callable[..., Any] = ConvolveNormalized.apply


@dataclass(frozen=True)
class FusedConvolution:
    """A convolution and the following layers that its kernel computes."""

    convolution: nn.Conv2d
    norm: nn.BatchNorm2d | None
    activation: int
    layers: tuple[nn.Module, ...]
    """The layers of the network that it replaces, the convolution first."""

    def __call__(self, images: Tensor) -> Tensor:
        """Map images (N, C, H, W) as the layers do, with torch if the kernel cannot."""
        weight = self.convolution.weight
        if not (_fits(images, weight) and _saves_products(images, weight)):
            return self._by_layers(images)
        if self.norm is None:
            return self._convolve(images, weight, self.convolution.bias)
        if not self.norm.training:
            return self._convolve(images, *_fold(self.convolution, self.norm))
        count, _, height, width = images.shape
        if count * height * width < 2:  # torch raises an error for one value per channel
            return self._by_layers(images)
        return self._normalize(self.norm, images, count * height * width)

    def _by_layers(self, images: Tensor) -> Tensor:
        for layer in self.layers:
            images = layer(images)
        return images

    def _convolve(self, images: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        # The first layer's kernel has no pool.
        pool = self.activation == RELU_POOL and weight.shape[1] <= MAX_DIRECT_INPUTS
        activation = RELU if pool else self.activation
        outputs: Tensor = _convolve(images, weight, bias, activation)
        return F.max_pool2d(outputs, 2) if pool else outputs

    def _normalize(self, norm: nn.BatchNorm2d, images: Tensor, values: int) -> Tensor:
        convolution = self.convolution
        outputs: Tensor
        outputs, mean, variance = _convolve_normalized(
            images, convolution.weight, convolution.bias, norm.weight, norm.bias, norm.eps,
            self.activation,
        )  # fmt: skip
        # _is_fusable_norm() has checked these.
        assert norm.num_batches_tracked is not None
        assert norm.running_mean is not None
        assert norm.running_var is not None
        assert norm.momentum is not None
        with torch.no_grad():
            norm.num_batches_tracked.add_(1)
            norm.running_mean.lerp_(mean, norm.momentum)
            norm.running_var.lerp_(variance * (values / (values - 1)), norm.momentum)
        return outputs


def _fold(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Return weight and bias of one convolution that computes both layers in evaluation."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    shift = norm.bias - norm.running_mean * scale
    if convolution.bias is not None:
        shift = shift + convolution.bias * scale
    return convolution.weight * scale[:, None, None, None], shift


class AcceleratedNetwork(nn.Module):
    """The same network with the compiled kernels: same parameters under the same names.

    Hooks on layers inside `features` are not called.

    Args:
        network: The network.

    Raises:
        KernelError: The kernels are unavailable, or no layer has one.
    """

    def __init__(self, network: VGG) -> None:
        super().__init__()
        # The network's own modules, not copies.
        self.features = network.features
        self.classifier = network.classifier
        self._hidden = (network,)  # in a tuple, or its parameters would have a second name
        self.steps = tuple(fuse(list(self.features.children())))
        self.training = network.training
        fused = [step for step in self.steps if isinstance(step, FusedConvolution)]
        if not fused:
            raise KernelError(
                "no layer of this network has a compiled kernel; they support 3×3 convolutions in "
                f"float32 on the CPU with channels in multiples of {find_processor().widths[-1]}; "
                "use --kernels torch"
            )
        for step in fused:
            library_for(step.convolution.weight)

    @property
    def network(self) -> VGG:
        """The original network, for export and torch.compile."""
        return self._hidden[0]

    def train(self, mode: bool = True) -> AcceleratedNetwork:
        """Set training mode here and in the original network."""
        super().train(mode)
        self.network.train(mode)  # last: it keeps frozen layers in evaluation mode
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, C, H, W), float32, to logits (N, num_classes)."""
        for step in self.steps:
            images = step(images)
        return self.network.classify(images)


def fuse(layers: Sequence[nn.Module]) -> Iterator[FusedConvolution | nn.Module]:
    """Combine each convolution that has a kernel with the norm, ReLU and pool that follow it."""
    at = 0
    while at < len(layers):
        layer = layers[at]
        at += 1
        # Exactly this class: a subclass may do something else with its weight.
        if not (type(layer) is nn.Conv2d and has_kernel(layer)):
            yield layer
            continue
        first = at - 1
        norm = layers[at] if at < len(layers) else None
        if norm is not None and _is_fusable_norm(norm):
            at += 1
        else:
            norm = None
        pools = norm is not None or layer.in_channels > MAX_DIRECT_INPUTS
        activation, length = _activation(layers[at : at + 2], pools)
        at += length
        yield FusedConvolution(layer, norm, activation, tuple(layers[first:at]))


def has_kernel(convolution: nn.Conv2d) -> bool:
    """Whether a kernel supports this layer: 3×3, stride 1, padding 1, channels by vectors.

    Raises:
        KernelError: The kernels do not support this processor.
    """
    return (
        convolution.kernel_size == (3, 3)
        and convolution.stride == (1, 1)
        and convolution.padding in ((1, 1), "same")
        and convolution.dilation == (1, 1)
        and convolution.groups == 1
        and convolution.padding_mode == "zeros"
        and _is_plain(convolution.weight)
        and lanes_for(convolution.in_channels, convolution.out_channels) is not None
    )


def _activation(following: Sequence[nn.Module], pools: bool) -> tuple[int, int]:
    """Return the activation that replaces the next layers, and how many it replaces."""
    kinds = ["relu" if isinstance(layer, nn.ReLU) else "pool" if _is_pool(layer) else ""
             for layer in following]  # fmt: skip
    # max and ReLU commute: either order is the same function with the same gradients.
    if sorted(kinds) == ["pool", "relu"] and pools:
        return RELU_POOL, 2
    if kinds[:1] == ["relu"]:
        return RELU, 1
    return NONE, 0


def _is_fusable_norm(layer: nn.Module) -> TypeGuard[nn.BatchNorm2d]:
    # Exactly this class: SyncBatchNorm, for example, needs the values of other processes.
    return (
        type(layer) is nn.BatchNorm2d
        and layer.affine
        and layer.track_running_stats
        and layer.momentum is not None
    )


def _is_pool(layer: nn.Module) -> bool:
    return (
        isinstance(layer, nn.MaxPool2d)
        and layer.kernel_size in (2, (2, 2))
        and layer.stride in (2, (2, 2))
        and layer.padding in (0, (0, 0))
        and layer.dilation in (1, (1, 1))
        and not layer.ceil_mode
        and not layer.return_indices
    )


def _fits(images: Tensor, weight: Tensor) -> bool:
    """Whether a kernel supports both; if they do not match, torch raises its own error."""
    match = images.dim() == 4 and images.shape[1] == weight.shape[1]
    return match and _is_plain(images) and _is_plain(weight)


def _saves_products(images: Tensor, weight: Tensor) -> bool:
    """Whether a kernel needs fewer multiplications than direct convolution, 9 per output.

    A tile of 4×4 outputs needs 36, however few of them are inside the image. At 2×2, the last
    stage of VGG D at 32×32, both need as many, and torch was 1.3 to 1.6 times faster (Zen 4).
    """
    height, width = images.shape[2:]
    tiles = -(-height // 4) * -(-width // 4)
    return weight.shape[1] <= MAX_DIRECT_INPUTS or 36 * tiles < 9 * height * width


def _is_plain(tensor: Tensor) -> bool:
    return (
        tensor.device.type == "cpu"
        and tensor.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
    )
