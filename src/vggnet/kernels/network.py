"""A VGG network whose convolutions run through the compiled kernels.

The kernels compute a convolution together with the ReLU and the pool behind it, so a
network is cut into steps of several layers; a layer that fits no kernel is a step of its
own and torch's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vggnet.kernels.library import MOST_DIRECT_INPUTS, NONE, RELU, RELU_POOL
from vggnet.kernels.loading import lanes_for
from vggnet.kernels.operations import convolve


@dataclass(frozen=True)
class FusedConvolution:
    """A convolution and what its kernel computes along with it."""

    convolution: nn.Conv2d
    activation: int
    layers: tuple[nn.Module, ...]
    """The layers of the network that it stands for, the convolution first."""

    def __call__(self, images: Tensor) -> Tensor:
        """Map images (N, C, H, W) as the layers do, by torch where the kernel cannot."""
        convolution = self.convolution
        if _is_plain(images) and _is_plain(convolution.weight):
            outputs: Tensor = convolve(
                images, convolution.weight, convolution.bias, self.activation
            )[0]
            return outputs
        for layer in self.layers:
            images = layer(images)
        return images


class AcceleratedNetwork(nn.Module):
    """The same network, with the same parameters under the same names, by the kernels.

    Hooks on layers inside `features` are not called.

    Attributes:
        network: The network that it computes; export and torch.compile take that one.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        # Shared, not copied: names and tensors are the network's.
        self.features: nn.Module = network.get_submodule("features")
        self.classifier: nn.Module = network.get_submodule("classifier")
        self._hidden = (network,)  # in a tuple, or its parameters would have a second name
        self.steps = tuple(fuse(list(self.features.children())))
        self.training = network.training

    @property
    def network(self) -> nn.Module:
        """The network that this one computes."""
        return self._hidden[0]

    def train(self, mode: bool = True) -> AcceleratedNetwork:
        """Set training mode here and in the network itself."""
        self.network.train(mode)
        super().train(mode)
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, C, H, W), float32, to logits (N, num_classes)."""
        for step in self.steps:
            images = step(images)
        logits: Tensor = self.classifier(images.flatten(1))
        return logits


def fuse(layers: Sequence[nn.Module]) -> Iterator[FusedConvolution | nn.Module]:
    """Gather each convolution that fits a kernel with the ReLU and pool that follow it."""
    at = 0
    while at < len(layers):
        layer = layers[at]
        if isinstance(layer, nn.Conv2d) and has_kernel(layer):
            direct = layer.in_channels <= MOST_DIRECT_INPUTS
            activation, length = _activation(layers[at + 1 : at + 3], direct)
            yield FusedConvolution(layer, activation, tuple(layers[at : at + 1 + length]))
            at += 1 + length
        else:
            yield layer
            at += 1


def has_kernel(convolution: nn.Conv2d) -> bool:
    """Whether a kernel computes this layer: 3×3, stride 1, padding 1, channels by eights.

    Raises:
        KernelError: The machine has no vectors that serve.
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


def _activation(following: Sequence[nn.Module], direct: bool) -> tuple[int, int]:
    """Return what a kernel can do of the next layers, and how many that are."""
    kinds = ["relu" if isinstance(layer, nn.ReLU) else "pool" if _is_pool(layer) else ""
             for layer in following]  # fmt: skip
    # max and ReLU commute, so either order is the same function, with the same gradients.
    if sorted(kinds) == ["pool", "relu"] and not direct:
        return RELU_POOL, 2
    if kinds[:1] == ["relu"]:
        return RELU, 1
    return NONE, 0


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


def _is_plain(tensor: Tensor) -> bool:
    return (
        tensor.device.type == "cpu"
        and tensor.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
    )
