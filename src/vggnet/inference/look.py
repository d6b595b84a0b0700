"""What a network looks at: filters, feature maps, receptive fields, maximally activating images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from vggnet.engine.features import trace
from vggnet.inference.predict import BATCH_SIZE, Classifier

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Field:
    """The pixels that one value of a feature map depends on."""

    size: int
    """Height and width of the receptive field."""
    stride: int
    """Pixels between two neighboring values."""
    start: float
    """Center of the first value's field, in pixels of the network's input."""

    def box(self, row: int, column: int, margin: tuple[int, int]) -> tuple[float, float, float]:
        """Return left, top and side of a value's field, in pixels of the image.

        Args:
            row, column: Of the value in its map.
            margin: Pixels of padding at the top and the left of the image.
        """
        corner = self.start - self.size / 2
        return (
            corner + column * self.stride - margin[1],
            corner + row * self.stride - margin[0],
            float(self.size),
        )


@dataclass(frozen=True)
class TopActivations:
    """The images that activate a channel most, and where."""

    channel: int
    images: tuple[int, ...]
    """Numbers of the images, the strongest first."""
    places: tuple[tuple[int, int], ...]
    """Row and column of the largest value in each image's map."""


@dataclass(frozen=True)
class StageView:
    """One stage on one image and on a set of images."""

    maps: Floats
    """The feature map of the image, (C, S, S)."""
    field: Field
    top_activations: tuple[TopActivations, ...]
    """For the channels that the image activates most; empty without a set of images."""


@dataclass(frozen=True)
class View:
    """All that `look` shows of a network."""

    filters: Floats
    """Of the first layer, (out, in, k, k)."""
    image: Pixels
    """(C, H, W)."""
    label: str
    """Its predicted class."""
    margin: tuple[int, int]
    """Pixels that the network's input has above and left of the image."""
    stages: tuple[StageView, ...]


def fields(network: nn.Module) -> Iterator[Field]:
    """Yield the receptive field of the values at the end of each stage.

    Source: https://distill.pub/2019/computing-receptive-fields/
    """
    size, stride, start = 1, 1, 0.5
    for layer in network.get_submodule("features").children():
        if isinstance(layer, nn.Conv2d):
            size += (layer.kernel_size[0] - 1) * stride
        elif isinstance(layer, nn.MaxPool2d):
            size, start, stride = size + stride, start + stride / 2, 2 * stride
            yield Field(size, stride, start)


@torch.no_grad()
def look(
    classifier: Classifier, image: Pixels, others: Pixels | None, channels: int, most: int
) -> View:
    """Run a network on an image, and on others to find what activates its channels most.

    Args:
        classifier: The model.
        image: uint8, (C, H, W).
        others: uint8, (N, C, H, W).
        channels: Of each stage, the number of channels to find maximally activating images for.
        most: Images for each channel.
    """
    network = classifier.network
    maps = [one[0].cpu() for one in _stages(classifier, image[np.newaxis])]
    chosen = [one.amax((1, 2)).topk(min(channels, len(one))).indices for one in maps]
    found = (
        [()] * len(maps)
        if others is None
        else _find_top_activations(classifier, others, chosen, most)
    )
    first = next(one for one in network.modules() if isinstance(one, nn.Conv2d))
    size, (height, width) = network.config.image_size, image.shape[1:]
    return View(
        first.weight.cpu().numpy(),
        image,
        str(classifier.predict(image[np.newaxis])[0].label),
        ((size - height) // 2, (size - width) // 2),
        tuple(
            StageView(one.numpy(), field, top)
            for one, field, top in zip(maps, fields(network), found, strict=True)
        ),
    )


def _stages(classifier: Classifier, images: Pixels) -> tuple[torch.Tensor, ...]:
    pixels = torch.tensor(images, device=classifier.device)
    return trace(classifier.network, classifier.preprocess(pixels)).stages


def _find_top_activations(
    classifier: Classifier, others: Pixels, chosen: list[torch.Tensor], most: int
) -> list[tuple[TopActivations, ...]]:
    """Return, for each stage, the images with the largest values in the chosen channels."""
    peaks: list[list[torch.Tensor]] = [[] for _ in chosen]
    places: list[list[torch.Tensor]] = [[] for _ in chosen]
    sides = []
    for start in range(0, len(others), BATCH_SIZE):
        stages = _stages(classifier, others[start : start + BATCH_SIZE])
        sides = [one.shape[-1] for one in stages]
        for number, one in enumerate(stages):
            largest = one[:, chosen[number]].flatten(2).max(dim=2)
            peaks[number].append(largest.values.cpu())
            places[number].append(largest.indices.cpu())
    found = []
    for channels, values, where, side in zip(chosen, peaks, places, sides, strict=True):
        best = torch.cat(values).topk(min(most, len(others)), dim=0).indices.T
        at = torch.cat(where)
        found.append(
            tuple(
                TopActivations(
                    int(channel),
                    tuple(images.tolist()),
                    tuple(divmod(int(at[image, number]), side) for image in images),
                )
                for number, (channel, images) in enumerate(zip(channels, best, strict=True))
            )
        )
    return found
