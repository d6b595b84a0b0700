"""Images and their labels, checked to belong together."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, cast

import numpy as np
import numpy.typing as npt

from vggnet.errors import ConfigError, DataError

if TYPE_CHECKING:
    from collections.abc import Sequence


ARRAYS = "arrays"
"""Default name of a dataset that a program holds."""


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

    def __repr__(self) -> str:
        images = f"{len(self):,} images, {describe_shape(self.images.shape[1:])}"
        return f"LabeledImages({images}, {self.num_classes} classes: {self.source})"

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
    """All images that a run uses; a notebook shows some of each class.

    Examples:
        >>> dataset = vggnet.load_dataset("mnist")
        >>> dataset.classes[:3], dataset.shape, dataset.test.images.shape
        (('0', '1', '2'), (1, 28, 28), (10000, 1, 28, 28))
    """

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

    @classmethod
    def from_arrays(
        cls,
        train: tuple[Any, Any],
        test: tuple[Any, Any] | None = None,
        *,
        classes: Sequence[str] | None = None,
        name: str = ARRAYS,
        image_size: int | None = None,
        common_classes: bool = False,
    ) -> Self:
        """Build a dataset from images and labels that a program holds.

        Images are a NumPy array or a tensor: (N, H, W), (N, C, H, W), (N, H, W, C) with one or
        three channels, or (N, values) of square images. They are whole numbers from 0 to 255, or
        fractions from 0 to 1, which are rounded to multiples of 1/255. Or they are a list of
        such images or of Pillow images.

        Args:
            train: Images and labels, (N,): whole numbers or names.
            test: The same for the test; default: a sixth of each class is held out.
            classes: The names of labels 0, 1, …; default: the labels themselves.
            name: What to call the dataset, and the files of a run on it.
            image_size: Height and width to fit the images to; needed if they have several sizes.
            common_classes: Skip classes that are not in both splits.

        Raises:
            DataError: The images or labels are something else; the message says what.

        Examples:
            >>> import numpy as np
            >>> images = np.random.default_rng(0).random((12, 16, 16))
            >>> vggnet.Dataset.from_arrays((images, ["cat", "dog"] * 6))
            Dataset(arrays: 10 training and 2 test images, grey 16×16, 2 classes)
        """
        from vggnet.data.collection import Request
        from vggnet.data.sources.objects import build_dataset

        request = Request(image_size=image_size, common_classes=common_classes)
        return cast("Self", build_dataset(train, test, classes, name, request))

    def __repr__(self) -> str:
        validation = f", {len(self.validation):,} validation" if self.validation else ""
        return (
            f"Dataset({self.name}: {len(self.train):,} training{validation} and "
            f"{len(self.test):,} test images, {describe_shape(self.shape)}, "
            f"{len(self.classes)} classes)"
        )

    def _repr_html_(self) -> str:
        from vggnet.data.sheet import render_dataset

        return render_dataset(self)


def describe_shape(shape: tuple[int, ...]) -> str:
    """Describe the shape (C, H, W) of an image, such as "grey 28×28"."""
    channels, height, width = shape
    kind = {1: "grey", 3: "colour"}.get(channels, f"{channels}-channel")
    return f"{kind} {width}×{height}"


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
