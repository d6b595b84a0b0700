"""One picture file to a square uint8 array."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from vggnet.data.idx import Source

_DEEP = ("I", "I;16", "I;16B", "I;16L")
"""Pillow's modes of 16-bit grey."""


class UnreadableError(Exception):
    """A file that is no whole picture; says why."""


@dataclass(frozen=True)
class Header:
    """What the first bytes of a picture file say."""

    side: int
    """Pixels of the longer side."""
    grey: bool


def read_header(path: Source) -> Header:
    """Read a picture's size and kind, not its pixels.

    Raises:
        UnreadableError: It is no picture.
    """
    with _readable(), path.open("rb") as file, Image.open(file) as image:
        return Header(max(image.size), image.mode in ("1", "L", "LA", *_DEEP))


def read_picture(path: Source, channels: int, side: int) -> npt.NDArray[np.uint8]:
    """Read a picture as uint8, (C, side, side), upright as its EXIF data say.

    It is scaled until its longer side fits, and centred on black. What is transparent
    shows white.

    Args:
        path: The file.
        channels: 1 for grey, 3 for colour.
        side: Pixels a side of the result.

    Raises:
        UnreadableError: It is no picture, or damaged.
    """
    with _readable(), path.open("rb") as file, Image.open(file) as opened:
        opened.draft(None, (2 * side, 2 * side))  # a JPEG is decoded no larger than needed
        image: Image.Image = ImageOps.exif_transpose(opened)
        if image.mode in _DEEP:
            image = Image.fromarray((np.asarray(image, np.float32) / 257).round().astype(np.uint8))
        if image.has_transparency_data:
            white = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(white, image.convert("RGBA"))
        image = image.convert("L" if channels == 1 else "RGB")
        fitted = ImageOps.pad(image, (side, side), Image.Resampling.LANCZOS, color="black")
    pixels = np.asarray(fitted)
    return pixels[np.newaxis] if channels == 1 else np.moveaxis(pixels, -1, 0)


@contextmanager
def _readable() -> Iterator[None]:
    """Turn all that Pillow raises over a bad file into one error."""
    try:
        yield
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UnreadableError(f"more than {Image.MAX_IMAGE_PIXELS:,} pixels") from None
    except UnidentifiedImageError:
        raise UnreadableError("no picture") from None
    except (OSError, ValueError, SyntaxError, EOFError, IndexError, TypeError) as error:
        raise UnreadableError(" ".join(str(error).split()) or type(error).__name__) from None
