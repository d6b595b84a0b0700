"""VGG networks from the table: stages of 3×3 convolutions, then fully connected layers.

Source: arXiv 1409.1556. Parameter names are torchvision's and the article's:
`features.N.weight`, `classifier.N.weight`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vggnet.architectures import read_layer
from vggnet.config import ModelConfig
from vggnet.errors import ConfigError


class VGG(nn.Module):
    """A VGG network for square images of `config.image_size` pixels.

    Raises:
        ConfigError: The pools cannot halve the image so many times.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        side, rest = divmod(config.image_size, config.downsampling)
        if rest or not side:
            raise ConfigError(
                f"{len(config.layers.stages)} pools cannot halve {config.image_size} pixels "
                f"evenly; use an image size of {padded_size(config, config.image_size)}"
            )
        self.config = config
        self.features = nn.Sequential(*_features(config))
        self.classifier = nn.Sequential(*_classifier(config, side))
        self._frozen: list[nn.Module] = []

    def freeze(self, layers: int) -> None:
        """Stop training the first layers with weights, and their batch norm's statistics."""
        weighted = [one for one in self.modules() if isinstance(one, nn.Conv2d | nn.Linear)]
        rest = weighted[layers] if layers < len(weighted) else None
        for module in [*self.features, *self.classifier]:
            if module is rest:
                break
            module.requires_grad_(False)
            self._frozen.append(module)

    def train(self, mode: bool = True) -> VGG:
        """Set training mode, except in frozen layers."""
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, C, S, S), float32, to logits (N, num_classes)."""
        return self.classify(self.features(images))

    def classify(self, maps: Tensor) -> Tensor:
        """Map the last feature maps (N, C, s, s) to logits (N, num_classes).

        In training, maps of images that are still growing (`TrainConfig.growth_fraction`) are
        enlarged to those of whole images.
        """
        if self.training:
            maps = resample(maps, self.config.image_size // self.config.downsampling)
        logits: Tensor = self.classifier(maps.flatten(1))
        return logits


def resample(images: Tensor, side: int) -> Tensor:
    """Resize images or feature maps (N, C, s, s) to (N, C, side, side).

    The same as PyTorch's bilinear interpolation with antialiasing, by two matrix products:
    PyTorch's gradient of an interpolation is not deterministic on every device.
    """
    old = images.shape[-1]
    if old == side:
        return images
    weights = _interpolation(old, side, images.device, images.dtype)
    return F.linear(F.linear(images, weights).mT, weights).mT.contiguous()


@cache
def _interpolation(old: int, side: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return the weights of `old` values in each of `side` interpolated ones, (side, old).

    Computed on the device, which a copy from the host could make wait.
    """
    before, after = (torch.arange(count, device=device) + 0.5 for count in (old, side))
    distances = (before - after[:, None] * (old / side)).abs()
    weights = (1 - distances / max(1.0, old / side)).clamp(min=0)
    return (weights / weights.sum(1, keepdim=True)).to(dtype)


def padded_size(config: ModelConfig, pixels: int) -> int:
    """Return the smallest image size of at least `pixels` that the pools halve evenly."""
    return -(-pixels // config.downsampling) * config.downsampling


def build_network(config: ModelConfig, seed: int) -> VGG:
    """Build a network whose initial weights depend only on the seed.

    Initialization "torch" is PyTorch's default: weights and biases uniform in
    ±1/sqrt(fan_in). "he" (arXiv 1502.01852) draws weights from a normal distribution with
    variance 2/fan_in, or 1/fan_in in the last layer, which has no ReLU; biases are zero.
    Batch norm starts with weight 1 and bias 0 in both.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = VGG(config)
        if config.initialization == "he":
            layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
            for layer in layers:
                gain = 1 if layer is layers[-1] else 2
                nn.init.normal_(layer.weight, std=math.sqrt(gain / layer.weight[0].numel()))
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)
    return network


def _features(config: ModelConfig) -> Iterator[nn.Module]:
    channels = config.in_channels
    for stage in config.layers.stages:
        for position, layer in enumerate(stage):
            match read_layer(layer):
                case None:
                    # Size and k are AlexNet's, which the paper refers to for A-LRN.
                    yield nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=2)
                case kernel, width:
                    yield nn.Conv2d(channels, width, kernel, padding=kernel // 2)
                    channels = width
                    if config.batch_norm:
                        yield nn.BatchNorm2d(width)
                    if position == len(stage) - 1:
                        # Max and ReLU commute; pooling first leaves ReLU a quarter of the values.
                        yield nn.MaxPool2d(2)
                    yield nn.ReLU(inplace=True)
        if stage[-1] == "lrn":
            yield nn.MaxPool2d(2)


def _classifier(config: ModelConfig, side: int) -> Iterator[nn.Module]:
    convolutions = [found for layer in config.layers.stages[-1] if (found := read_layer(layer))]
    width = convolutions[-1][1] * side * side
    for hidden in config.layers.hidden:
        yield nn.Linear(width, hidden)
        yield nn.ReLU(inplace=True)
        yield nn.Dropout(config.dropout)
        width = hidden
    yield nn.Linear(width, config.num_classes)
