"""Arrays, tensors, Pillow images and lists of them, as a program holds them: images to uint8."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from vggnet.data.collection import TEST, TRAIN, Request, to_dataset
from vggnet.data.dataset import Dataset
from vggnet.data.decode import convert_image
from vggnet.data.image import fit_image
from vggnet.data.sources.arrays import (
    ArraySplit,
    Numbers,
    Pixels,
    collect,
    row_shape,
    scale_pixels,
    shape_images,
)
from vggnet.errors import DataError

_COLORS, _WITH_ALPHA = 3, 4
"""Channels of a colour image without and with transparency."""


def build_dataset(
    train: tuple[Any, Any],
    test: tuple[Any, Any] | None,
    classes: Sequence[str] | None,
    name: str,
    request: Request,
) -> Dataset:
    """Build a dataset; see `Dataset.from_arrays`."""
    warnings = []
    splits = {TRAIN: _read_split(train, classes, f"{name}, training", request)}
    if test is None:
        warnings.append(
            "no test images were given, so a sixth of each class is held out for the test; "
            "pass test=(images, labels)"
        )
    else:
        splits[TEST] = _read_split(test, classes, f"{name}, test", request)
    shapes = {split.images.shape[1:] for split in splits.values()}
    if len(shapes) > 1 and request.image_size is None:
        raise DataError(
            f"{name}: the training and test images have different shapes, "
            f"{' and '.join(map(str, sorted(shapes)))}; pass image_size=32 or another size"
        )
    request = replace(request, class_order=tuple(classes or ()))
    return to_dataset(collect(splits, name, request, warnings), name, name)


def read_images(images: Any, source: str, image_size: int | None = None) -> Pixels:
    """Return images of one size as uint8, (N, C, H, W).

    Args:
        images: See `Dataset.from_arrays`.
        source: What messages call them.
        image_size: Height and width to fit images of different sizes to.

    Raises:
        DataError: They are something else, or have different sizes and there is no `image_size`.
        ImageError: A Pillow image is damaged.
    """
    if not is_list_of_images(images):
        array = as_array(images, source)
        if array.ndim != 4 or _WITH_ALPHA not in (array.shape[1], array.shape[3]):
            return shape_images(scale_pixels(array, source), source)
        images = array
    read = [read_image(one, f"{source}, image {at:,}") for at, one in enumerate(images, 1)]
    if not read:
        raise DataError(f"{source} has no images")
    channels = max(len(one) for one in read)
    sizes = {one.shape[1:] for one in read}
    height, width = sizes.pop()
    if sizes and image_size is None:
        raise DataError(
            f"{source} has images of different sizes; pass image_size=32 or another size"
        )
    if sizes:
        height = width = image_size or 0
    return np.stack([_fit(one, (channels, height, width)) for one in read])


def read_image(image: Any, source: str) -> Pixels:
    """Return one image as uint8, (C, H, W), with one or three channels; as `read_images`."""
    if not isinstance(image, Image.Image):
        pixels = _place_channels(scale_pixels(as_array(image, source), source), source)
        if len(pixels) != _WITH_ALPHA:
            return pixels
        image = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    flat = convert_image(image)
    return flat[np.newaxis] if flat.ndim == 2 else flat.transpose(2, 0, 1)


def is_list_of_images(images: Any) -> bool:
    """Return whether something is a list of images, and not an array or a list of numbers."""
    return isinstance(images, list | tuple) and bool(
        images and (isinstance(images[0], Image.Image) or hasattr(images[0], "shape"))
    )


def as_array(values: Any, source: str) -> Numbers:
    """Return an array, a tensor on any device, or nested lists as an array.

    Raises:
        DataError: They are something else, or not rectangular.
    """
    try:
        if hasattr(values, "detach"):
            values = values.detach().cpu().numpy()
        array = np.asarray(values)
    except (TypeError, ValueError) as error:  # bfloat16, and lists of different lengths
        raise DataError(f"{source}: no array can be made of it: {error}") from None
    if array.dtype.kind == "O" and all(isinstance(one, str) for one in array.flat):
        return array.astype(str)  # as a pandas column has it
    return array


def _read_split(
    part: tuple[Any, Any], classes: Sequence[str] | None, source: str, request: Request
) -> ArraySplit:
    """Read the images and labels of a split, and replace the labels' numbers by `classes`."""
    if not isinstance(part, tuple | list) or len(part) != 2:
        raise DataError(f"{source}: pass two things, (images, labels), not {type(part).__name__}")
    labels = as_array(part[1], f"{source}, labels")
    if classes is not None and labels.dtype.kind in "iu":
        if labels.size and not 0 <= labels.min() <= labels.max() < len(classes):
            raise DataError(
                f"{source}: labels run from {labels.min()} to {labels.max()}, "
                f"and there are {len(classes)} classes"
            )
        labels = np.array(classes)[labels]
    return ArraySplit(read_images(part[0], source, request.image_size), labels)


def _place_channels(pixels: Pixels, source: str) -> Pixels:
    """Return one image of any form as (C, H, W)."""
    if pixels.ndim == 1 and (found := row_shape(len(pixels))):
        return pixels.reshape(found)
    if pixels.ndim == 2:
        return pixels[np.newaxis]
    first, last = (
        pixels.ndim == 3 and pixels.shape[at] in (1, _COLORS, _WITH_ALPHA) for at in (0, 2)
    )
    if first == last:
        words = "can have its channels first or last" if first else "is no image"
        raise DataError(
            f"{source} of shape {pixels.shape} {words}; pass (H, W), (C, H, W) or (H, W, C) with "
            "one, three or four channels"
        )
    return pixels if first else pixels.transpose(2, 0, 1)


def _fit(image: Pixels, shape: tuple[int, int, int]) -> npt.NDArray[np.uint8]:
    if image.shape == shape:
        return image
    return fit_image(image[0] if len(image) == 1 else image.transpose(1, 2, 0), *shape)
