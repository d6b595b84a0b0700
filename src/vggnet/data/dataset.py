"""Images and their labels, checked to belong together."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from vggnet.errors import ConfigError, DataError


@dataclass(frozen=True)
class LabeledImages:
    """Images and the numbers of their classes.

    Args:
        images: uint8, (N, C, H, W); in memory, or mapped from a file.
        labels: uint8 or wider integers, (N,), each below `num_classes`.
        num_classes: Number of classes.
        source: What messages call them.

    Raises:
        DataError: Counts differ, a label is out of range, or there is no image.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.integer]
    num_classes: int
    source: str

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or self.images.dtype != np.uint8:
            raise DataError(f"{self.source}: images must be uint8 of shape (N, C, H, W)")
        if len(self.images) != len(self.labels):
            raise DataError(
                f"{self.source}: {len(self.images):,} images but {len(self.labels):,} labels; "
                "are the files from the same split?"
            )
        if len(self.labels) == 0:
            raise DataError(f"{self.source} has no images")
        lowest, highest = int(self.labels.min()), int(self.labels.max())
        if lowest < 0 or highest >= self.num_classes:
            raise DataError(
                f"{self.source}: labels run from {lowest} to {highest}, but the classes "
                f"are 0 to {self.num_classes - 1}"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: npt.NDArray[np.int64], source: str) -> LabeledImages:
        """Return the chosen images, in the given order; mapped images stay in their file."""
        chosen = (
            cast("npt.NDArray[np.uint8]", SelectedImages(self.images, indices))
            if isinstance(self.images, (np.memmap, SelectedImages))
            else self.images[indices]
        )
        return LabeledImages(chosen, self.labels[indices], self.num_classes, source)


class SelectedImages:
    """Some of the images that are mapped from a file, read when they are indexed.

    It has what `LabeledImages` and `Batches` use of an array; anything else is an error, not a
    copy of the whole file.

    Args:
        mapped: uint8, (N, C, H, W).
        rows: Which of them, (M,).
    """

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(
        self, mapped: npt.NDArray[np.uint8] | SelectedImages, rows: npt.NDArray[np.int64]
    ) -> None:
        self._mapped: npt.NDArray[np.uint8]
        self._rows: npt.NDArray[np.int64]
        if isinstance(mapped, SelectedImages):
            self._mapped, self._rows = mapped._mapped, mapped._rows[rows]
        else:
            self._mapped, self._rows = mapped, rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, key: Any) -> npt.NDArray[np.uint8]:
        # Unlike indexing, this lets other threads run while the disk is read.
        return np.asarray(np.take(self._mapped, self._rows[key], axis=0))

    @property
    def shape(self) -> tuple[int, ...]:
        """(M, C, H, W)."""
        return (len(self), *self._mapped.shape[1:])

    @property
    def nbytes(self) -> int:
        """Bytes of all images."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Dataset:
    """All images that a run uses."""

    name: str
    classes: tuple[str, ...]
    train: LabeledImages
    test: LabeledImages
    sha256: str
    """Equal hashes mean the same images, labels, classes and splits."""
    verified: bool = False
    """Whether every file has its published hash."""
    validation: LabeledImages | None = None
    """The data's own validation split."""
    bit_depth: int | None = None
    """Bits that count as the full range of 16-bit images; None without such images."""
    warnings: tuple[str, ...] = ()
    """What to know about the images before trusting a result."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        _, channels, height, width = self.train.images.shape
        return channels, height, width


def is_imbalanced(counts: npt.NDArray[np.int64]) -> bool:
    """Whether a class has three times the images of another; classes without any do not count."""
    present = counts[counts > 0]
    return bool(present.max() >= 3 * present.min())


def hold_out_tenth(train: LabeledImages, seed: int) -> tuple[LabeledImages, LabeledImages | None]:
    """Split training images into those to train on and a tenth of each class to validate on.

    At least one of each class, except of those with fewer than five. The choice depends only
    on the seed and the labels.
    """
    order = np.random.default_rng(seed).permutation(len(train))
    by_class = order[np.argsort(train.labels[order], kind="stable")]
    labels = train.labels[by_class].astype(np.int64)
    counts = np.bincount(labels, minlength=train.num_classes)
    places = np.arange(len(train)) - (np.cumsum(counts) - counts)[labels]
    held_counts = np.where(counts < 5, 0, np.maximum(1, np.rint(counts / 10)))
    is_held = places < held_counts[labels]
    if not is_held.any():
        return train, None
    kept, held = np.sort(by_class[~is_held]), np.sort(by_class[is_held])
    return train.take(kept, train.source), train.take(held, f"{train.source}, held out")


def hold_out(
    train: LabeledImages, size: int, seed: int
) -> tuple[LabeledImages, LabeledImages | None]:
    """Split training images into those to train on and `size` to validate on.

    The choice depends only on the seed and the number of images.

    Raises:
        ConfigError: No image would be left to train on.
    """
    if size == 0:
        return train, None
    if size >= len(train):
        raise ConfigError(
            f"validation_size {size:,} leaves nothing to train on: "
            f"{train.source} has {len(train):,} images"
        )
    order = np.random.default_rng(seed).permutation(len(train))
    kept, held = np.sort(order[size:]), np.sort(order[:size])
    return train.take(kept, train.source), train.take(held, f"{train.source}, held out")
