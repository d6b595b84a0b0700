"""Whatever a program passes to `Classifier.predict` ► what the network sees of it."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vggnet.data.dataset import LabeledImages
from vggnet.data.matching import TrainedOn
from vggnet.data.sources.arrays import Numbers, Pixels, scale_pixels, shape_images
from vggnet.data.sources.objects import as_array, is_list_of_images, read_image
from vggnet.errors import DataError, ImageError
from vggnet.inference.read import choose_bit_depth, choose_reading, find_inputs, prepare_item
from vggnet.inference.reading import Reading, see

_log = logging.getLogger(__name__)

_SOURCE = "the input"
"""What messages call the images."""

_MOST_NAMED = 5

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Seen:
    """What a network sees of some images."""

    images: Pixels
    """(N, C, H, W)."""
    drawn: Numbers
    """Whether anything is drawn in each image, bool, (N,)."""
    names: tuple[str, ...] = ()
    """Of the files, if the images are from files."""


def see_images(images: Any, trained_on: TrainedOn, prepare: bool | None) -> Seen:
    """Read and prepare images; see `Classifier.predict`.

    Raises:
        DataError: They are none that can be read; the message says why.
        ImageError: A file cannot be read, or is not prepared and not of the network's size.
    """
    shape = trained_on.image_shape
    reading = Reading.AS_IT_IS if prepare is False else choose_reading(trained_on)
    if isinstance(images, str | Path) or _is_list_of_paths(images):
        return _see_files(images, reading, trained_on)
    if isinstance(images, LabeledImages):
        images = images.images[:]
    if is_list_of_images(images):
        found = [(one, read_image(one, f"image {at:,}")) for at, one in enumerate(images, 1)]
        kept = [hasattr(original, "shape") for original, _ in found]  # an array, not a Pillow image
        return _see_all([one for _, one in found], reading, shape, prepare, kept)
    if hasattr(images, "convert"):  # a Pillow image
        return _see_all([read_image(images, _SOURCE)], reading, shape, prepare, [False])
    batch = _as_batch(as_array(images, _SOURCE), shape)
    if batch.shape[1:] == shape and not prepare:
        return Seen(batch, np.ones(len(batch), bool))
    return _see_all(list(batch), reading, shape, prepare, [True] * len(batch))


def _see_files(paths: Any, reading: Reading, trained_on: TrainedOn) -> Seen:
    named = [paths] if isinstance(paths, str | Path) else paths
    inputs = find_inputs(map(Path, named))
    for warning in inputs.warnings:
        _log.warning("%s", warning)
    depth = choose_bit_depth(inputs, trained_on)
    found = [prepare_item(one, reading, trained_on.image_shape, depth) for one in inputs.items]
    problems = [
        f"{item.path}: {one}"
        for item, one in zip(inputs.items, found, strict=True)
        if isinstance(one, str)
    ]
    if problems:
        more = f"; and {len(problems) - _MOST_NAMED:,} more" if len(problems) > _MOST_NAMED else ""
        raise ImageError("cannot read " + "; ".join(problems[:_MOST_NAMED]) + more)
    seen = [one for one in found if not isinstance(one, str)]
    return _join(seen, trained_on.image_shape, tuple(item.path for item in inputs.items))


def _see_all(
    images: list[Pixels], reading: Reading, shape: Shape, prepare: bool | None, kept: list[bool]
) -> Seen:
    """Prepare images, (C, H, W) each; those in `kept` only if they have not the network's shape."""
    found = []
    for image, keep in zip(images, kept, strict=True):
        if image.shape == shape and (prepare is False or (prepare is None and keep)):
            found.append([image])
        else:
            photo = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
            found.append(see(np.ascontiguousarray(photo), reading, shape))
    return _join(found, shape)


def _join(found: list[list[Pixels]], shape: Shape, names: tuple[str, ...] = ()) -> Seen:
    blank = np.zeros(shape, np.uint8)
    images = np.stack([one[0] if one else blank for one in found])
    return Seen(images, np.array([bool(one) for one in found]), names)


def _is_list_of_paths(images: Any) -> bool:
    return (
        isinstance(images, list | tuple)
        and bool(images)
        and all(isinstance(one, str | Path) for one in images)
    )


def _as_batch(array: Numbers, shape: Shape) -> Pixels:
    """Return one or several images of any form as (N, C, H, W).

    Raises:
        DataError: They have no form of images, or not their values.
    """
    if not array.size:
        raise DataError(f"{_SOURCE} of shape {array.shape} are none")
    channels, height, width = shape
    pixels = scale_pixels(array, _SOURCE)
    if pixels.ndim == 1 and len(pixels) == channels * height * width:
        pixels = pixels[np.newaxis]
    if pixels.ndim == 2 and pixels.shape[1] == channels * height * width:
        _log.info("an array of shape %s is taken as one image in each row", pixels.shape)
        return pixels.reshape(-1, *shape)
    if pixels.ndim == 4:
        if pixels.shape[1:] == shape:
            return pixels
        if pixels.shape[1:] == (height, width, channels):
            return pixels.transpose(0, 3, 1, 2)
        if 4 in (pixels.shape[1], pixels.shape[3]):
            return np.stack([read_image(one, _SOURCE) for one in pixels])
        return shape_images(pixels, _SOURCE)
    several = pixels.ndim == 3 and (
        (channels == 1 and pixels.shape[1:] == (height, width))
        or not {1, 3, 4} & {pixels.shape[0], pixels.shape[2]}
    )
    return pixels[:, np.newaxis] if several else read_image(pixels, _SOURCE)[np.newaxis]
