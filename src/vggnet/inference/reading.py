"""An image of any size becomes what a network takes. Needs neither torch nor the network."""

from __future__ import annotations

from enum import Enum

import numpy as np
import numpy.typing as npt

from vggnet.data.image import fit_image
from vggnet.errors import ImageError
from vggnet.inference.prepare import prepare_digit
from vggnet.inference.split import split_digits

Pixels = npt.NDArray[np.uint8]


class Reading(Enum):
    """How an image is prepared."""

    DRAWN = "drawn"
    """One character on any paper, redrawn in MNIST's style."""
    ROW = "row"
    """Several such characters in a row."""
    FITTED = "fitted"
    """An image of anything, resized and centered."""
    AS_IT_IS = "as it is"
    """Not at all: it must have the network's size."""


def see(image: Pixels, reading: Reading, shape: tuple[int, int, int]) -> list[Pixels]:
    """Prepare an image for a network.

    Args:
        image: uint8, (H, W, 3) or (H, W).
        reading: How to prepare it.
        shape: Channels, height and width of the network's input.

    Returns:
        uint8, (C, H, W): one image, or one for each character of a row, or none if the image
        is blank.

    Raises:
        ImageError: The image is not prepared and its size is not the network's.
    """
    channels, height, width = shape
    if reading is Reading.AS_IT_IS and image.shape[:2] != (height, width):
        rows, columns = image.shape[:2]
        raise ImageError(
            f"{columns} × {rows} pixels, not {width} × {height}; leave out --no-prepare, or "
            "prepare=False"
        )
    if reading is Reading.ROW:
        found = split_digits(image)
    elif reading is Reading.DRAWN:
        digit = prepare_digit(image)
        found = [] if digit is None else [digit]
    else:
        found = [image]
    return [fit_image(one, channels, height, width) for one in found]


def decoding_side(reading: Reading, shape: tuple[int, int, int]) -> int | None:
    """Return the `side` for `decode_image`: fitted images are decoded as for training."""
    return max(shape[1:]) if reading is Reading.FITTED else None
