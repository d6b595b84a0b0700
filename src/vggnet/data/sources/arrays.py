"""Arrays of pixels and labels, as files of digits hold them, become a collection."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from vggnet.data.collection import (
    SPLITS,
    TRAIN,
    Collection,
    Request,
    arrange,
    find_split_in,
    list_names,
    natural_key,
)
from vggnet.data.files import File, Tree
from vggnet.data.image import fit_image
from vggnet.errors import DataError

Pixels = npt.NDArray[np.uint8]
Numbers = npt.NDArray[Any]

_CHUNK = 1_024
"""Images that are converted at a time."""

_DARK = 32
"""Warn if no pixel value is larger, of 255."""

SMALLEST_SIDE = 4
"""Pixels a side of the smallest image that a row of numbers can be."""


@dataclass(frozen=True)
class ArraySplit:
    """One split as a file holds it."""

    images: Pixels
    """(N, C, H, W)."""
    labels: Numbers | None
    """(N,), whole numbers or strings; None without labels."""
    warnings: tuple[str, ...] = ()


ArraySplits = Mapping[int, ArraySplit]
"""By TRAIN, TEST and VALIDATION."""


def assign_splits(files: Sequence[File], tree: Tree) -> dict[int, File]:
    """Return which split each file is, by its name; a single file is for training.

    Raises:
        DataError: The names do not tell.
    """
    if len(files) == 1:
        split = None if tree.is_file else find_split_in(files[0].base)
        return {TRAIN if split is None else split: files[0]}
    found: dict[int, File] = {}
    for file in files:
        split = find_split_in(file.base)
        if split is None or split in found:
            names = list_names([file.name for file in files])
            raise DataError(
                f"{tree.path} holds {len(files)} data files ({names}), and their names do not tell "
                "the splits: name one of them, or put train, validation and test into their names"
            )
        found[split] = file
    return found


def collect(
    splits: ArraySplits, source: str, request: Request, warnings: Sequence[str] = ()
) -> Collection:
    """Number the labels, fit the images to the requested size, and join the splits.

    Raises:
        DataError: Labels are missing, or there are not as many as images.
    """
    labels, classes = _number_labels(splits, source, request.class_order)
    numbers = sorted(splits)
    counts = [len(splits[number].images) for number in numbers]
    rows = arrange(
        np.concatenate([labels[number] for number in numbers]),
        classes,
        np.repeat(numbers, counts),
        source,
        request.common_classes,
    )
    channels, height, width = splits[numbers[0]].images.shape[1:]
    if request.image_size not in (None, max(height, width)):
        height = width = request.image_size
    shape = (request.channels or channels, height, width)
    fitted = [fit_images(splits[number].images, shape) for number in numbers]
    images = fitted[0] if len(fitted) == 1 else np.concatenate(fitted)
    warnings = [*warnings, *(warning for one in splits.values() for warning in one.warnings)]
    if images.size and images.max() < _DARK:
        warnings.append(
            f"{source} is dark: no pixel value is above {images.max()}, of 255 for white"
        )
    if not np.array_equal(rows.order, np.arange(len(images))):
        images = images[rows.order]
    names = [
        f"{source}, {SPLITS[number]} image {at:,}"
        for number, count in zip(numbers, counts, strict=True)
        for at in range(1, count + 1)
    ]
    return Collection(
        images,
        rows,
        [names[at] for at in rows.order],
        warnings=tuple(warnings),
    )


def fit_images(images: Pixels, shape: tuple[int, int, int]) -> Pixels:
    """Fit images, (N, C, H, W), into a shape (C, H, W); see `fit_image`."""
    if images.shape[1:] == shape:
        return images
    fitted = np.empty((len(images), *shape), np.uint8)
    for number, image in enumerate(images):
        fitted[number] = fit_image(
            image[0] if len(image) == 1 else image.transpose(1, 2, 0), *shape
        )
    return fitted


def turn_emnist(split: ArraySplit, file: File) -> ArraySplit:
    """Transpose the images of a file whose name begins with emnist; EMNIST stores them so."""
    if not file.base.lower().startswith("emnist"):
        return split
    warning = f"{file.path} has EMNIST's name, so its images are transposed, as EMNIST stores them"
    images = np.ascontiguousarray(split.images.swapaxes(2, 3))
    return replace(split, images=images, warnings=(*split.warnings, warning))


def shape_images(array: Numbers, source: str) -> Numbers:
    """Return pixels as (N, C, H, W).

    Args:
        array: (N, H, W), (N, H, W, C), (N, C, H, W), or one row an image: square, in grey, or
            three such planes, red first.
        source: What messages call it.

    Raises:
        DataError: It has another shape, or the channels can be in two places.
    """
    if array.ndim == 2:
        found = row_shape(array.shape[1])
        if found is None:
            raise DataError(
                f"{source} has {array.shape[1]:,} values for each image, which are no square image "
                "in grey or colour"
            )
        return array.reshape(len(array), *found)
    if array.ndim == 3:
        return array[:, np.newaxis]
    first, last = (array.ndim == 4 and array.shape[at] in (1, 3) for at in (1, 3))
    if first == last:
        words = "can have its channels first or last" if first else "holds no images"
        raise DataError(
            f"{source} of shape {array.shape} {words}; store (N, H, W), (N, C, H, W) or "
            "(N, H, W, C) with one or three channels"
        )
    return array if first else array.transpose(0, 3, 1, 2)


def row_shape(count: int) -> tuple[int, int, int] | None:
    """Return channels, height and width of a square image with so many values, if any."""
    for channels in (1, 3):
        side = math.isqrt(count // channels)
        if side >= SMALLEST_SIDE and channels * side * side == count:
            return channels, side, side
    return None


def scale_pixels(array: Numbers, source: str) -> Pixels:
    """Return pixels as uint8: whole numbers 0 to 255, or fractions 0 to 1 times 255.

    Raises:
        DataError: They are of another type, or out of range.
    """
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind not in "biuf":
        raise DataError(f"{source} has type {array.dtype}; pixels are whole numbers or fractions")
    if array.dtype.kind == "b":
        return array.astype(np.uint8) * np.uint8(255)
    if not array.size:
        return array.astype(np.uint8)
    lowest, highest = array.min(), array.max()  # NaN if there is one
    most = 1 if array.dtype.kind == "f" else 255
    if not (lowest >= 0 and highest <= most):
        raise DataError(
            f"{source} has values from {lowest:g} to {highest:g}; pixels are whole numbers from 0 "
            "to 255, or fractions from 0 to 1 (divide by the value of white)"
        )
    scaled = np.empty(array.shape, np.uint8)
    for at in range(0, len(array), _CHUNK):
        part = array[at : at + _CHUNK]
        scaled[at : at + _CHUNK] = part if most == 255 else (part * 255).round()
    return scaled


def _number_labels(
    splits: ArraySplits, source: str, order: Sequence[str]
) -> tuple[dict[int, npt.NDArray[np.int64]], tuple[str, ...]]:
    """Return labels as positions in the list of classes, and that list.

    The classes are the labels that occur: 1 to 10 are ten classes, none of them called 0. Those
    in `order` come first, in that order; others follow in natural order.
    """
    found: dict[int, Numbers] = {}
    for number, split in splits.items():
        if split.labels is None:
            raise DataError(f"{source} has no labels, so it can be predicted but not trained on")
        found[number] = _check_labels(split.labels, source)
        if len(found[number]) != len(split.images):
            raise DataError(
                f"{source}: {len(split.images):,} images but {len(split.labels):,} labels in the "
                f"{SPLITS[number]} split"
            )
    values = np.unique(np.concatenate(list(found.values())))
    first = {name: place for place, name in enumerate(order)}
    names = sorted(
        map(str, values.tolist()), key=lambda name: (first.get(name, len(first)), natural_key(name))
    )
    places = {name: place for place, name in enumerate(names)}
    position = np.array([places[str(value)] for value in values.tolist()], np.int64)
    numbered = {
        number: position[np.searchsorted(values, labels)] for number, labels in found.items()
    }
    return numbered, tuple(names)


def _check_labels(labels: Numbers, source: str) -> Numbers:
    """Return labels, (N,) or (N, 1), as whole numbers or strings, (N,)."""
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise DataError(f"{source} has labels of shape {labels.shape}; store one for each image")
    if labels.dtype.kind == "S":
        return np.char.decode(labels, "utf-8", "backslashreplace")
    if labels.dtype.kind == "U":
        # NumPy stores any number as a character; Python raises SystemError for a larger one.
        points = np.dtype(np.uint32).newbyteorder(labels.dtype.byteorder)
        if labels.nbytes and np.ascontiguousarray(labels).view(points).max() > sys.maxunicode:
            raise DataError(f"{source} has labels that are not Unicode text")
        return labels
    # Larger floats have no digit for one, and larger integers do not fit int64.
    if labels.dtype.kind not in "biuf" or not (
        (np.abs(labels) < 2.0**53).all() and (labels % 1 == 0).all()
    ):
        raise DataError(f"{source} has labels that are neither whole numbers nor names")
    if labels.size and labels.min() < 0:
        raise DataError(f"{source} has a negative label: {labels.min():g}")
    return labels.astype(np.int64)
