"""Start a network from trained weights that may be for other classes, channels or image sizes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from vggnet.errors import ConfigError
from vggnet.model.vgg import VGG


@dataclass(frozen=True)
class Transfer:
    """Which weights a network took over."""

    pretrained: tuple[str, ...]
    """Names of the parameters that are fully taken over; the rest keep their initial values."""
    notes: tuple[str, ...]
    """What was changed or reinitialized, in words."""


@torch.no_grad()
def transfer_weights(
    source: VGG, source_classes: Sequence[str], target: VGG, target_classes: Sequence[str]
) -> Transfer:
    """Copy the weights of one network into another with the same layers.

    The first convolution is summed over colors for gray images, or spread over them. For
    another image size, the first fully connected layer is resampled to the new feature map.
    The last layer keeps the rows of classes with the same name; new classes keep their
    initial weights.

    Raises:
        ConfigError: The networks have different layers.
    """
    check_same_layers(source, target)
    found, notes = dict(source.state_dict()), []
    wanted = target.state_dict()
    first, hidden = "features.0.weight", "classifier.0.weight"
    last = [name for name in wanted if name.startswith("classifier.")][-2].removesuffix(".weight")
    reinitialized: set[str] = set()
    if found[first].shape != wanted[first].shape:
        found[first] = _adapt_channels(found[first], wanted[first].shape[1])
        notes.append(
            f"first layer: {source.config.in_channels} to {target.config.in_channels} channels"
        )
    if found[hidden].shape[1] != wanted[hidden].shape[1]:
        found[hidden] = _resample(found[hidden], wanted[hidden].shape[1], source)
        notes.append(
            "first fully connected layer: resampled for images of "
            f"{target.config.image_size} instead of {source.config.image_size} pixels"
        )
    if tuple(source_classes) != tuple(target_classes):
        kept = _adapt_classes(found, wanted, last, list(source_classes), list(target_classes))
        reinitialized = {f"{last}.weight", f"{last}.bias"}
        notes.append(
            f"last layer: kept {kept} of {len(target_classes)} classes, initialized the others"
        )
    target.load_state_dict(found)
    names = (name for name, _ in target.named_parameters() if name not in reinitialized)
    return Transfer(tuple(names), tuple(notes))


def check_same_layers(source: VGG, target: VGG) -> None:
    """Compare the layers of two networks, except what `transfer_weights` adapts.

    Raises:
        ConfigError: They differ.
    """
    ours, theirs = target.config, source.config
    if (ours.layers, ours.batch_norm) != (theirs.layers, theirs.batch_norm):
        raise ConfigError(
            f"the initial weights are of {theirs.name}{' with batch norm' * theirs.batch_norm}, "
            f"and the network is {ours.name}{' with batch norm' * ours.batch_norm}"
        )


def _adapt_channels(weight: Tensor, channels: int) -> Tensor:
    """Give a convolution (O, I, H, W) other input channels, with the same sum over them."""
    total = weight.sum(1, keepdim=True)
    return (total / channels).expand(-1, channels, -1, -1).clone()


def _resample(weight: Tensor, inputs: int, source: VGG) -> Tensor:
    """Resample a layer (O, C·S·S) to another feature map, with the same output for a constant."""
    side = source.config.image_size // source.config.downsampling
    channels = weight.shape[1] // side**2
    new = math.isqrt(inputs // channels)
    maps = weight.view(len(weight), channels, side, side)
    resampled: Tensor = F.interpolate(maps, (new, new), mode="bilinear", antialias=new < side)
    resampled = resampled * (side / new) * (side / new)
    # Interpolation at the borders changes the sum a little.
    missing = maps.mean((2, 3), keepdim=True) * side**2 - resampled.sum((2, 3), keepdim=True)
    result: Tensor = resampled + missing / new**2
    return result.flatten(1)


def _adapt_classes(
    found: dict[str, Tensor], wanted: dict[str, Tensor], last: str, old: list[str], new: list[str]
) -> int:
    """Put the rows of classes with the same name into the new last layer; return their number."""
    places = {name: at for at, name in enumerate(old)}
    pairs = [(places[name], at) for at, name in enumerate(new) if name in places]
    for kind in ("weight", "bias"):
        rows = wanted[f"{last}.{kind}"].clone()
        for theirs, ours in pairs:
            rows[ours] = found[f"{last}.{kind}"][theirs]
        found[f"{last}.{kind}"] = rows
    return len(pairs)
