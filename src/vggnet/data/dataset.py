"""Images and labels in memory, and what they mean."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vggnet.errors import ConfigError, DataError


@dataclass(frozen=True)
class LabeledImages:
    """Images and their classes, checked to belong together.

    Args:
        images: uint8, (N, C, H, W).
        labels: uint8 or wider integers, (N,), each below `num_classes`.
        num_classes: Classes that the labels tell apart.
        source: What to call them in an error.

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
                "are the files of one and the same split?"
            )
        if len(self.labels) == 0:
            raise DataError(f"{self.source}: there is no image in it")
        lowest, highest = int(self.labels.min()), int(self.labels.max())
        if lowest < 0 or highest >= self.num_classes:
            raise DataError(
                f"{self.source}: labels run from {lowest} to {highest}, but the classes "
                f"are 0 to {self.num_classes - 1}"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: npt.NDArray[np.int64], source: str) -> LabeledImages:
        """Return the chosen images, in that order."""
        return LabeledImages(self.images[indices], self.labels[indices], self.num_classes, source)


@dataclass(frozen=True)
class Dataset:
    """Everything that a run reads."""

    name: str
    classes: tuple[str, ...]
    train: LabeledImages
    test: LabeledImages
    sha256: str
    """One hash over the hashes of all files: equal means the same images and labels."""
    verified: bool = False
    """Whether every file could be compared with a published hash."""
    warnings: tuple[str, ...] = ()
    """What a person should know of the images before believing a figure."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        _, channels, height, width = self.train.images.shape
        return channels, height, width


def hold_out(
    train: LabeledImages, size: int, seed: int
) -> tuple[LabeledImages, LabeledImages | None]:
    """Split training images into those to learn from and `size` to validate on.

    The choice is a pure function of the seed and the number of images.

    Raises:
        ConfigError: Nothing would be left to learn from.
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
