"""JSON to images: numbers from outside become uint8 arrays of the network's size, or an error."""

from __future__ import annotations

import json
from math import prod

import numpy as np
import numpy.typing as npt

ImageShape = tuple[int, int, int]


class PixelsError(Exception):
    """Numbers that are no images for this network, said in a sentence."""


def read_json(body: bytes) -> object:
    """Parse a JSON text.

    Raises:
        PixelsError: It is none, or nested too deeply.
    """
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise PixelsError("the body is not JSON") from None


def read_pixels(values: object, image_shape: ImageShape) -> npt.NDArray[np.uint8]:
    """Turn nested lists of 0 to 255 into images.

    Args:
        values: One image or several: (H, W) or (N, H, W) where the network takes grey
            ones, (C, H, W) otherwise; (N, C, H, W) in any case.
        image_shape: The channels, height and width that the network takes.

    Returns:
        uint8, (N, C, H, W).

    Raises:
        PixelsError: They are anything else.
    """
    array = _as_array(values)
    if image_shape[0] == 1 and array.ndim in (2, 3):
        array = array[..., np.newaxis, :, :]
    if array.ndim == 3:
        array = array[np.newaxis]
    if array.ndim != 4 or array.shape[1:] != image_shape or not len(array):
        channels, height, width = image_shape
        single = f"{height} rows of {width} numbers" + f" for each of {channels} channels" * (
            channels > 1
        )
        raise PixelsError(f"an image is {single} from 0 to 255; send one or a list of them")
    return array.astype(np.uint8)


def read_tensor(values: object, shape: list[int], image_shape: ImageShape) -> npt.NDArray[np.uint8]:
    """Turn a tensor of the Open Inference Protocol, flat or nested, into images.

    Raises:
        PixelsError: Its data do not fill its shape, or the shape is not the network's.
    """
    array = _as_array(values)
    if list(shape[1:]) != list(image_shape) or shape[0] < 1:
        expected = ", ".join(map(str, image_shape))
        raise PixelsError(f"images have the shape [N, {expected}], not {shape}")
    if array.size != prod(shape) or (array.ndim > 1 and list(array.shape) != shape):
        raise PixelsError(f"the data do not fill the shape {shape}")
    return array.reshape(shape).astype(np.uint8)


def _as_array(values: object) -> npt.NDArray[np.object_]:
    """Return whole numbers from 0 to 255 as an array of Python's objects.

    NumPy's own choice of a type would widen every element to the longest string among them.
    """
    if not isinstance(values, list):
        raise PixelsError("pixels are given as lists of numbers")
    array = np.array(values, dtype=object)
    kinds = set(map(type, array.flat))
    if list in kinds:
        raise PixelsError("rows of an image must be equally long")
    if kinds != {int} or array.min() < 0 or array.max() > 255:
        raise PixelsError("pixels are whole numbers from 0 to 255")
    return array
