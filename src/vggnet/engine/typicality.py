"""How typical an image is of the training images, from what the network computes of it.

The values of each layer get a normal distribution per class, in the directions in which training
images vary most. With one covariance for all classes, as in arXiv 1807.03888, each layer alone
found a third fewer letters. An image is as typical as the share of held-out images that fit no
better: a conformal p-value (arXiv 2104.08279), so a threshold of 1 % flags 1 % of images like them.
`benchmarks/out_of_distribution.py` measures what this finds.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Sequence
from functools import cached_property
from typing import Annotated, Self

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from torch import Tensor
from torch.nn import functional as F

from vggnet.architectures import read_layer
from vggnet.config import ModelConfig
from vggnet.engine.calibration import rows_at_once
from vggnet.engine.features import Trace
from vggnet.errors import DataError

MOST_VALUES, MOST_PLACES = 1024, 4
"""A feature map is averaged over a grid of at most so many values, and places in a row."""

DIRECTIONS = 64
"""Directions in which training images vary most, per layer."""

_SHARED = 0.1
"""Weight of the covariance of all classes in that of each class."""

_LEAST_PER_CLASS = 100
"""Training images per class; with fewer, all classes share one covariance."""

_MOST = 6e4
"""Largest score, which 16 bits can hold."""

_RIDGE = 1e-4
"""Added to a covariance, relative to its mean variance."""


class EncodedArray(BaseModel):
    """An array as text: float16, little-endian, in base64."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    shape: tuple[Annotated[int, Field(ge=1)], ...]
    data: str

    @classmethod
    def encode(cls, values: Tensor) -> Self:
        """Store a tensor, rounded to 16 bits."""
        array = values.cpu().numpy().astype("<f2")
        return cls(shape=array.shape, data=base64.b64encode(array.tobytes()).decode("ascii"))

    def __eq__(self, other: object) -> bool:
        """Compare the stored values, not what was decoded already."""
        if not isinstance(other, EncodedArray):
            return NotImplemented
        return (self.shape, self.data) == (other.shape, other.data)

    __hash__ = None  # type: ignore[assignment]

    @cached_property
    def tensor(self) -> Tensor:
        """The values, float32."""
        values = np.frombuffer(base64.b64decode(self.data), "<f2").astype(np.float32)
        return torch.from_numpy(values.reshape(self.shape))

    @model_validator(mode="after")
    def _valid(self) -> Self:
        try:
            size = len(base64.b64decode(self.data, validate=True))
        except (binascii.Error, ValueError):
            raise ValueError("an array is not valid base64") from None
        if size != 2 * math.prod(self.shape):
            raise ValueError(f"an array has {size:,} bytes, which is not the shape {self.shape}")
        if not self.tensor.isfinite().all():
            raise ValueError("an array contains NaN or infinity")
        return self


class LayerStatistics(BaseModel):
    """The distribution of one layer's values over the training images."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    unit: float = Field(gt=0)
    """What values are divided by, so that they are near 1, where 16 bits are precise."""
    center: EncodedArray
    """Mean of all images, (F,)."""
    directions: EncodedArray
    """In which they vary most, (F, D)."""
    means: EncodedArray
    """Of each class in these directions, (K, D)."""
    whitening: EncodedArray
    """Lower triangles of the covariances' inverse Cholesky factors, row by row, (K, D (D + 1) / 2),
    or (1, ...) for all classes."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        (features, *_), (classes, directions) = self.center.shape, self.means.shape
        wanted = {
            "center": (self.center.shape, (features,)),
            "directions": (self.directions.shape, (features, directions)),
            "whitening": (self.whitening.shape[1:], (directions * (directions + 1) // 2,)),
        }
        for name, (found, expected) in wanted.items():
            if found != expected:
                raise ValueError(f"{name} has the shape {found}, not {expected}")
        if self.whitening.shape[0] not in (1, classes):
            raise ValueError(f"whitening has {self.whitening.shape[0]} factors")
        return self

    @cached_property
    def _factors(self) -> tuple[Tensor, Tensor, Tensor]:
        """Whitening matrices, (K D, D), whitened means, (K, D), and log determinants, (K,)."""
        packed, size = self.whitening.tensor, self.means.shape[1]
        factors = torch.zeros(len(packed), size, size)
        rows, columns = torch.tril_indices(size, size)
        factors[:, rows, columns] = packed
        diagonals = factors.diagonal(dim1=1, dim2=2).abs().clamp(min=1e-6)
        means = (factors @ self.means.tensor[:, :, None])[:, :, 0]
        return factors.flatten(0, 1), means, diagonals.log().sum(1)

    def distance(self, values: Tensor) -> Tensor:
        """Return how far values (N, F) are from the nearest class, (N,).

        That is twice the negative log density, but for a constant.
        """
        inside = (values / self.unit - self.center.tensor) @ self.directions.tensor
        factors, means, volumes = self._factors
        # In place: a small tensor kept from each part would break up the memory of the freed ones,
        # and 1,000 classes could take 1.2 GiB.
        nearest = torch.empty(len(inside))
        for rows in rows_at_once(len(inside), means.numel()):
            # One product for all classes: differences from each mean took up to 3 times as long.
            product = inside[rows] @ factors.T
            whitened = product.view(len(product), -1, means.shape[1]) - means
            nearest[rows] = (whitened.square().sum(2) - 2 * volumes).amin(1)
        return nearest


class Typicality(BaseModel):
    """What a model file knows of the images that its network was trained on."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    layers: tuple[LayerStatistics, ...] = Field(min_length=1)
    """See `layer_values`."""
    offsets: tuple[float, ...]
    """Mean of each layer's distance over held-out images."""
    scales: tuple[Annotated[float, Field(gt=0)], ...]
    """Standard deviation of each layer's distance over held-out images."""
    scores: EncodedArray
    """Of the held-out images, ascending, (N,)."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not len(self.offsets) == len(self.scales) == len(self.layers):
            raise ValueError("offsets and scales must have one value for each layer")
        if len(self.scores.shape) != 1:
            raise ValueError("scores must be a row of numbers")
        if (self.scores.tensor.diff() < 0).any():
            raise ValueError("scores must ascend")
        return self

    @property
    def images(self) -> int:
        """Number of held-out images that others are compared with."""
        return self.scores.shape[0]

    def fits(self, network: ModelConfig) -> bool:
        """Whether the statistics are those of such a network's layers and classes."""
        sizes = [one.center.shape[0] for one in self.layers]
        most = max(one.means.shape[0] for one in self.layers)
        return sizes == layer_sizes(network) and most <= network.num_classes

    def rank(self, values: Sequence[Tensor]) -> npt.NDArray[np.float32]:
        """Return the share of held-out images that are as unusual or more, 0 to 1, (N,).

        Args:
            values: Of N images, as `layer_values` returns them.
        """
        distances = _distances(self.layers, values)
        scores = _standardize(distances, self.offsets, self.scales).numpy()
        # Rounded as the stored ones are: else an image would not be as unusual as itself.
        rounded = scores.astype(np.float16).astype(np.float32)
        below = np.searchsorted(self.scores.tensor.numpy(), rounded, side="left")
        shares = (self.images - below + 1) / (self.images + 1)
        return shares.astype(np.float32)


def layer_values(trace: Trace) -> list[Tensor]:
    """Return each stage's channel means, its map on a coarser grid, and the hidden layers."""
    stages = [
        F.adaptive_avg_pool2d(one, places).flatten(1)
        for one in trace.stages
        for places in _grids(one.shape[1], one.shape[2])
    ]
    return [one.float().cpu() for one in (*stages, *trace.hidden)]


def layer_sizes(network: ModelConfig) -> list[int]:
    """Return the number of values of each layer in `layer_values`."""
    sizes, side = [], network.image_size
    for stage in network.layers.stages:
        side //= 2
        channels = [found[1] for layer in stage if (found := read_layer(layer))][-1]
        sizes += [channels * places**2 for places in _grids(channels, side)]
    return [*sizes, *network.layers.hidden]


def _grids(channels: int, side: int) -> list[int]:
    """Return the sides of the grids over which a feature map is averaged."""
    finest = min(side, MOST_PLACES, max(1, math.isqrt(MOST_VALUES // channels)))
    return sorted({1, finest})


def fit_typicality(
    seen: Sequence[Tensor], labels: npt.NDArray[np.int64], held_out: Sequence[Tensor]
) -> Typicality:
    """Estimate the distributions, and score held-out images to compare others with.

    Args:
        seen: The values of training images, as `layer_values` returns them.
        labels: Of these images, (N,).
        held_out: The values of images that were not trained on.

    Raises:
        DataError: They are too few, a class has no images, or values do not vary or are not finite.
    """
    counts = np.bincount(labels)
    if len(labels) < DIRECTIONS * 4 or not counts.all():
        raise DataError("there are too few training images for statistics of each class")
    own = bool((counts >= _LEAST_PER_CLASS).all())
    classes = torch.from_numpy(labels)
    try:
        layers = tuple(_fit_layer(values.double(), classes, own) for values in seen)
        distances = _distances(layers, held_out)
        offsets, scales = distances.mean(0).tolist(), distances.std(0).clamp(min=1e-3).tolist()
        scores = EncodedArray.encode(_standardize(distances, offsets, scales).sort().values)
        return Typicality(layers=layers, offsets=offsets, scales=scales, scores=scores)
    except (RuntimeError, ValidationError):  # torch's LinAlgError is a RuntimeError
        raise DataError("the values of a layer do not vary, or are not finite") from None


def _fit_layer(values: Tensor, labels: Tensor, own: bool) -> LayerStatistics:
    """Return the statistics of a layer's values (N, F).

    Args:
        own: Whether each class gets its own covariance.
    """
    unit = values.std().clamp(min=1e-3)
    values = values / unit
    center = values.mean(0)
    centered = values - center
    # In single precision, the eigenvectors of 1,024 values take 0.16 instead of 0.29 s; they are
    # stored in 16 bits.
    single = centered.float()
    count = min(DIRECTIONS, len(center))
    vectors = torch.linalg.eigh(single.T @ single / len(values)).eigenvectors
    directions = vectors[:, -count:].double()
    inside = centered @ directions
    means = torch.stack([inside[labels == one].mean(0) for one in range(int(labels.max()) + 1)])
    rest = inside - means[labels]
    shared = rest.T @ rest / len(rest)
    covariances = [shared]
    if own:
        parts = [rest[labels == one] for one in range(len(means))]
        covariances = [(1 - _SHARED) * (one.T @ one) / len(one) + _SHARED * shared for one in parts]
    ridge = _RIDGE * (shared.diagonal().mean() + 1e-2) * torch.eye(count, dtype=torch.float64)
    factors = torch.linalg.inv(torch.linalg.cholesky(torch.stack(covariances) + ridge))
    rows, columns = torch.tril_indices(count, count)
    return LayerStatistics(
        unit=unit.item(),
        center=EncodedArray.encode(center),
        directions=EncodedArray.encode(directions),
        means=EncodedArray.encode(means),
        whitening=EncodedArray.encode(factors[:, rows, columns]),
    )


def _distances(layers: Sequence[LayerStatistics], values: Sequence[Tensor]) -> Tensor:
    """Return the distance of each layer, (N, layers)."""
    pairs = zip(layers, values, strict=True)
    return torch.stack([layer.distance(one) for layer, one in pairs], dim=1)


def _standardize(distances: Tensor, offsets: Sequence[float], scales: Sequence[float]) -> Tensor:
    """Return the sum of the distances in standard deviations, (N,)."""
    scores = ((distances - torch.tensor(offsets)) / torch.tensor(scales)).sum(1)
    return scores.nan_to_num(nan=_MOST).clamp(-_MOST, _MOST)
