"""Numbers in JSON become uint8 images of the network's size, or an error."""

from __future__ import annotations

from itertools import chain
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

ImageShape = tuple[int, int, int]
Images = npt.NDArray[np.uint8]

_MOST_DIMENSIONS = 4


class InputError(Exception):
    """A body that cannot be used.

    Args:
        detail: What is wrong, in one sentence.
        hint: Whether an example of a valid request helps.
    """

    def __init__(self, detail: str, *, hint: bool = False) -> None:
        super().__init__(detail)
        self.hint = hint


def read_pixels(values: object, image_shape: ImageShape) -> Images:
    """Turn nested lists of numbers from 0 to 255 into images.

    Args:
        values: (H, W) or (N, H, W) for a network with one channel, else (C, H, W);
            (N, C, H, W) for any network.
        image_shape: Channels, height and width of the network's input.

    Returns:
        uint8, (N, C, H, W).

    Raises:
        InputError: The shape or a number is not valid.
    """
    array = _to_array(values)
    if image_shape[0] == 1 and array.ndim in (2, 3):
        array = array[..., np.newaxis, :, :]
    if array.ndim == 3:
        array = array[np.newaxis]
    if array.ndim != 4 or array.shape[1:] != image_shape or not len(array):
        channels, height, width = image_shape
        single = f"{height} rows of {width} numbers" + f" for each of {channels} channels" * (
            channels > 1
        )
        raise InputError(f"an image is {single} from 0 to 255; send one or a list of them")
    return array


def read_tensor(values: object, shape: list[int], image_shape: ImageShape) -> Images:
    """Turn a tensor of the Open Inference Protocol, flat or nested, into images.

    Returns:
        uint8, (N, C, H, W).

    Raises:
        InputError: The shape is not the network's, or the data do not fill it.
    """
    array = _to_array(values)
    if list(shape[1:]) != list(image_shape) or shape[0] < 1:
        expected = ", ".join(map(str, image_shape))
        raise InputError(f"images have the shape [N, {expected}], not {shape}")
    if array.size != prod(shape) or (array.ndim > 1 and list(array.shape) != shape):
        raise InputError(f"the data do not fill the shape {shape}")
    return array.reshape(shape)


def _to_array(values: object) -> Images:
    """Return nested lists of whole numbers from 0 to 255 as an array."""
    shape: list[int] = []
    level: list[Any] = [values]
    while (types := set(map(type, level))) == {list}:
        lengths = set(map(len, level))
        if len(lengths) > 1:
            raise InputError("all rows of an image must have the same length")
        shape += lengths
        if len(shape) > _MOST_DIMENSIONS:
            raise InputError(f"pixels are lists of numbers, nested {_MOST_DIMENSIONS} deep at most")
        level = list(chain.from_iterable(level))
    if not shape:
        raise InputError("pixels are lists of numbers")
    whole = types <= {int, float} and all(map(_is_whole_byte, level))
    if not whole:
        raise InputError("pixels are whole numbers from 0 to 255")
    if float in types and max(level) == 1:
        raise InputError("pixels go from 0 to 255, and these from 0 to 1: multiply them by 255")
    return np.array(level, np.uint8).reshape(shape)


_is_whole_byte = set(range(256)).__contains__  # 7.0 equals 7; NaN equals nothing
