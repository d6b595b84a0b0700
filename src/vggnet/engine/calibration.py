"""Calibration: probabilities that are right as often as they say.

A network that is trained with smoothed labels is less sure than it is right: 90 % on average
where 99.4 % are right (MNIST, `fast`). A temperature, one factor for all logits (Guo et al.,
arXiv 1706.04599), corrects the average. Here a second number bends the scale. On MNIST both leave
an error of about 0.1 %, and few images mislead two numbers less: `benchmarks/calibration.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import functional as F

from vggnet.engine.optimizer import eager
from vggnet.errors import DataError

MIN_IMAGES = 200
"""Fewer held-out images decide nothing."""

BINS = 15
"""Bins of the calibration error, as in the literature."""

_RESAMPLES, _FEWEST_RESAMPLES = 1_000, 100
_MOST_DRAWN = 100_000_000
"""Images in all resamples. Of more than 100,000 images there are fewer resamples: 1,000 of a
million images take half a minute, and the interval is narrow."""

_MOST_WEIGHTS = 30_000
"""Weights of images in the resamples that are computed at a time: more leave the caches."""

_AT_ONCE = 1 << 20
"""Values that are computed with at a time."""

_LBFGS = eager(torch.optim.LBFGS)


class Calibration(BaseModel):
    """Two numbers that turn logits into calibrated probabilities.

    With d, the distance of each logit to the largest one, the probabilities are the softmax of
    -(scale d + curvature d²). Both are at least 0, so no prediction changes.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    scale: float = Field(gt=0)
    """1 / temperature."""
    curvature: float = Field(ge=0)
    images: int = Field(ge=1)
    """Held-out images that they were fitted on."""

    def adjust(self, logits: Tensor) -> Tensor:
        """Map logits (N, num_classes) to logits whose softmax is calibrated."""
        distances = logits.amax(1, keepdim=True) - logits
        return -distances * (self.scale + self.curvature * distances)


def to_probabilities(logits: Tensor, calibration: Calibration | None) -> Tensor:
    """Return the probabilities of all classes, (N, num_classes)."""
    return (calibration.adjust(logits) if calibration else logits).softmax(1)


def rows_at_once(count: int, width: int) -> list[slice]:
    """Return the parts in which to compute with an array (count, width) of logits, say.

    Temporary arrays take several times the memory of the logits, which is gigabytes for
    10,000 images and 10,000 classes.
    """
    size = max(1, _AT_ONCE // width)
    return [slice(start, start + size) for start in range(0, count, size)]


def fit_calibration(logits: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> Calibration:
    """Minimize the negative log-likelihood of images that were not trained on.

    Each label counts as n + 1 of n + 2, and the rest is spread over all classes, as in Platt's
    scaling (1999): without a single error among the images, the scale would be infinite.

    Args:
        logits: (N, num_classes).
        labels: (N,).

    Raises:
        DataError: The images decide nothing; the message says why.
    """
    _check_informative(logits, labels)
    count = len(labels)
    parts = [
        (torch.from_numpy(logits[rows]), torch.from_numpy(labels[rows]))
        for rows in rows_at_once(*logits.shape)
    ]
    # So that the same start suits logits of any size.
    unit = logits.size / torch.stack([_to_distances(part).sum() for part, _ in parts]).sum()
    logarithms = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    optimizer = _LBFGS([logarithms], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> float:
        optimizer.zero_grad()
        total = 0.0
        for part, of_part in parts:
            distances, (scale, curvature) = unit * _to_distances(part), logarithms.exp()
            value = F.cross_entropy(
                -distances * (scale + curvature * distances),
                of_part,
                reduction="sum",
                label_smoothing=1 / (count + 2),
            )
            (value / count).backward()  # type: ignore[no-untyped-call]
            total += value.item() / count
        return total

    optimizer.step(loss)
    scale, curvature = (logarithms.detach().exp() * torch.stack([unit, unit**2])).tolist()
    if not (math.isfinite(scale + curvature) and scale > 0):
        raise DataError("the fit did not converge")
    return Calibration(scale=scale, curvature=curvature, images=count)


def _to_distances(logits: Tensor) -> Tensor:
    """Return the distance of each logit to the largest one of its image, float64."""
    exact = logits.double()
    return exact.amax(1, keepdim=True) - exact


def _check_informative(logits: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> None:
    """Refuse images from which no calibration follows.

    Raises:
        DataError: It says why.
    """
    if len(labels) < MIN_IMAGES:
        raise DataError(f"{len(labels):,} held-out images are fewer than {MIN_IMAGES}")
    if len(np.unique(labels)) < 2:
        raise DataError("all held-out images are of one class")
    if not np.isfinite(logits).all():
        raise DataError("the network's outputs are not finite")
    if not np.ptp(logits, axis=1).any():
        raise DataError("the network's outputs are the same for all classes")


@dataclass(frozen=True)
class Reliability:
    """How sure predictions are, and how often they are right."""

    confidence: npt.NDArray[np.floating]
    """Probability of the predicted class, (N,)."""
    correct: npt.NDArray[np.bool_]
    """Whether the prediction is right, (N,)."""

    @property
    def error(self) -> float:
        """Expected calibration error, 0 to 1, over bins of equally many images.

        That is the mean difference of confidence and accuracy (Nixon et al., arXiv 1904.01685).
        Chance alone makes it positive: of 10,000 images of a perfectly calibrated network with
        0.6 % errors, about 0.1 %.
        """
        return float(_errors(self._gaps, np.ones((1, len(self._gaps)), np.int64))[0])

    def error_interval(self, seed: int = 0) -> tuple[float, float]:
        """Return the 95 % interval of the error, from a basic bootstrap over the images.

        A resample is noisier than the images themselves, so its error is larger on average; the
        basic interval (Davison and Hinkley 1997, section 5.2) turns that bias around.
        """
        gaps, generator = self._gaps, np.random.default_rng(seed)
        count = len(gaps)
        at_once = max(1, _MOST_WEIGHTS // count)
        resamples = max(_FEWEST_RESAMPLES, min(_RESAMPLES, _MOST_DRAWN // count))
        resampled = [
            _errors(gaps, _resample(count, min(at_once, resamples - first), generator))
            for first in range(0, resamples, at_once)
        ]
        low, high = np.quantile(np.concatenate(resampled), (0.025, 0.975))
        return max(0.0, 2 * self.error - high), max(0.0, 2 * self.error - low)

    @cached_property
    def _gaps(self) -> npt.NDArray[np.floating]:
        """Confidence minus correctness of each image, the least confident first, (N,)."""
        gaps: npt.NDArray[np.floating] = self.confidence - self.correct
        return gaps[np.argsort(self.confidence, kind="stable")]


def _resample(count: int, times: int, generator: np.random.Generator) -> npt.NDArray[np.int64]:
    """Draw `count` images with replacement; return how often each was drawn, (times, count)."""
    drawn = generator.integers(0, count, (times, count)) + count * np.arange(times)[:, np.newaxis]
    return np.bincount(drawn.ravel(), minlength=times * count).reshape(times, count)


def _errors(
    gaps: npt.NDArray[np.floating], weights: npt.NDArray[np.int64]
) -> npt.NDArray[np.floating]:
    """Return the calibration errors of resamples of images that are sorted by confidence, (R,).

    All resamples are one array, one after the other, so that NumPy is called once for all.

    Args:
        gaps: Confidence minus correctness of each image, (N,).
        weights: How often each image counts; the sum of each row is N, (R, N).
    """
    rows, count = weights.shape
    row = np.arange(rows)[:, np.newaxis]
    counted = np.cumsum(weights, axis=1) + row * (count + 1)
    bounds = count * np.arange(1, BINS) / BINS + row * (count + 1)
    starts = np.searchsorted(counted.ravel(), bounds, "left") + 1
    inside = starts < count * (row + 1)
    starts = np.unique(np.concatenate([count * row.ravel(), starts[inside]]))
    sums = np.add.reduceat((gaps * weights).ravel(), starts)
    errors: npt.NDArray[np.floating] = np.bincount(starts // count, np.abs(sums), rows) / count
    return errors
