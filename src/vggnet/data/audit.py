"""Faults of a dataset: copies, probably wrong labels, and classes with few images."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from vggnet.config import DataConfig
from vggnet.data.collection import SPLITS, TEST, TRAIN, VALIDATION, Request
from vggnet.data.dataset import LabeledImages
from vggnet.data.storage import is_path, load_configured, load_path

_SMALL_SIDE = 16
"""Pixels a side to which images are reduced before they are compared."""

_ALIKE = 0.995
"""Correlation of two reduced images from which on they are near copies."""

_MOST_COMPARED = 50_000
"""Images from which on only exact copies are searched: the time grows with the square."""

_BLOCK = 2_048
"""Images that are compared at a time with all others."""

FEW = 50
"""A class with fewer training images is reported."""


@dataclass(frozen=True)
class Copies:
    """Images that show the same."""

    members: tuple[int, ...]
    """Their positions, at least two, in order."""
    exact: bool
    """Whether all pixels are equal."""


@dataclass(frozen=True)
class LabelIssue:
    """An image whose label is probably wrong."""

    index: int
    label: int
    """As the dataset says."""
    suggestion: int
    """The class that the networks that did not see the image give it."""
    margin: float
    """Probability of the label minus that of the suggestion; the lower, the more suspect."""


@dataclass(frozen=True)
class AuditedImages:
    """All images of a dataset, of every split."""

    examples: LabeledImages
    classes: tuple[str, ...]
    names: Sequence[str]
    """What messages call each image."""
    splits: npt.NDArray[np.int64]
    """TRAIN, TEST or VALIDATION, (N,)."""


def load_all(data: DataConfig) -> AuditedImages:
    """Load all images that a configuration names.

    Raises:
        ConfigError: The name is unknown.
        DataError: The data cannot be read.
    """
    return _load_own(data) if is_path(data.dataset) else _load_named(data)


def _load_own(data: DataConfig) -> AuditedImages:
    found = load_path(data.dataset, data.data_dir, Request.of(data))
    rows = found.rows
    counts = [rows.train_size, rows.test_size]
    counts.append(len(rows.labels) - sum(counts))
    return AuditedImages(
        LabeledImages(found.images, rows.labels, len(rows.classes), data.dataset),
        rows.classes,
        found.names,
        np.repeat([TRAIN, TEST, VALIDATION], counts),
    )


def _load_named(data: DataConfig) -> AuditedImages:
    dataset = load_configured(data)
    parts = (dataset.train, dataset.test)
    examples = LabeledImages(
        np.concatenate([part.images for part in parts]),
        np.concatenate([part.labels for part in parts]).astype(np.int64),
        len(dataset.classes),
        dataset.name,
    )
    names = [
        f"{SPLITS[split]} image {number:,}"
        for split, part in enumerate(parts)
        for number in range(len(part))
    ]
    splits = np.repeat([TRAIN, TEST], [len(part) for part in parts])
    return AuditedImages(examples, dataset.classes, names, splits)


def find_copies(images: npt.NDArray[np.uint8]) -> list[Copies]:
    """Find exact and near copies among images, (N, C, H, W).

    Near copies are equal but for brightness, contrast or compression: the correlation of their
    grey versions of 16×16 pixels is at least 0.995.
    """
    by_content: dict[bytes, list[int]] = defaultdict(list)
    for number, image in enumerate(images):
        by_content[image.tobytes()].append(number)
    groups = [Copies(tuple(members), True) for members in by_content.values() if len(members) > 1]
    if len(images) <= _MOST_COMPARED:
        first = np.array(sorted(members[0] for members in by_content.values()))
        groups += [Copies(tuple(pair), False) for pair in _find_near(images, first)]
    return sorted(groups, key=lambda group: group.members)


def rank_label_issues(
    probabilities: npt.NDArray[np.float32], labels: npt.NDArray[np.integer]
) -> list[LabelIssue]:
    """Rank the images that the networks contradict, the most confident contradiction first.

    The probabilities are out of sample, as in confident learning (Northcutt et al., arXiv
    1911.00068). Its thresholds for each class are not used: they are mean probabilities, which
    half of the wrong labels miss if all probabilities are alike, as after label smoothing.

    Args:
        probabilities: Of networks that were not trained on the image, (N, num_classes).
        labels: (N,).
    """
    rows = np.arange(len(labels))
    best = probabilities.argmax(axis=1)
    margins = probabilities[rows, labels] - probabilities[rows, best]
    suspects = np.flatnonzero(best != labels)
    return [
        LabelIssue(int(at), int(labels[at]), int(best[at]), float(margins[at]))
        for at in suspects[np.argsort(margins[suspects], kind="stable")]
    ]


def find_small_classes(
    labels: npt.NDArray[np.integer], classes: Sequence[str]
) -> list[tuple[str, int]]:
    """Return the classes with few training images, and how many they have."""
    counts = np.bincount(labels, minlength=len(classes))
    return [(name, int(count)) for name, count in zip(classes, counts, strict=True) if count < FEW]


def _find_near(
    images: npt.NDArray[np.uint8], chosen: npt.NDArray[np.int64]
) -> list[tuple[int, int]]:
    """Return pairs of near copies among the chosen images."""
    small = np.empty((len(chosen), _SMALL_SIDE**2), np.float32)
    for row, number in enumerate(chosen):
        grey = images[number].mean(axis=0).round().astype(np.uint8)
        reduced = Image.fromarray(grey).resize((_SMALL_SIDE, _SMALL_SIDE), Image.Resampling.BOX)
        small[row] = np.asarray(reduced, np.float32).ravel()
    small -= small.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(small, axis=1, keepdims=True)
    small /= np.maximum(lengths, 1e-6)  # an image of one colour is like no other
    pairs = []
    for start in range(0, len(small), _BLOCK):
        alike = small[start : start + _BLOCK] @ small[start:].T >= _ALIKE
        for one, other in np.argwhere(np.triu(alike, 1)):
            pairs.append((int(chosen[start + one]), int(chosen[start + other])))
    return pairs
