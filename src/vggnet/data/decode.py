"""Encoded pictures to pixels: PNG, JPEG, WebP and BMP, in whatever mode they come."""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from vggnet.data.idx import Source
from vggnet.errors import PictureError

FORMATS = {"PNG": (".png",), "JPEG": (".jpg", ".jpeg"), "WEBP": (".webp",), "BMP": (".bmp",)}
"""What is read, by the name that Pillow gives it, with its suffixes."""

SUFFIXES = tuple(suffix for group in FORMATS.values() for suffix in group)

MAX_PIXELS = 178_956_970
"""By default; Pillow's own limit."""


_DEEP = ("I", "I;16", "I;16B", "I;16L", "F")
"""Pillow's modes of more than 8 bits."""


_OPENING = threading.Lock()
"""Folders are read by several threads, and what warnings are shown is the whole process's."""


@dataclass(frozen=True)
class Header:
    """What the first bytes of a picture file say."""

    side: int
    """Pixels of the longer side."""
    grey: bool


def read_header(path: Source) -> Header:
    """Read a picture's size and kind, not its pixels.

    Raises:
        PictureError: It is no picture of these formats, or too large.
    """
    with _refusals(MAX_PIXELS), path.open("rb") as file:
        picture = _open(file, MAX_PIXELS)
        return Header(max(picture.size), picture.mode in ("1", "L", "LA", *_DEEP))


def decode_picture(
    data: bytes, *, max_pixels: int = MAX_PIXELS, side: int | None = None
) -> npt.NDArray[np.uint8]:
    """Decode a picture; of several frames the first, turned upright as its EXIF data say.

    What is transparent becomes paper: white, or black where there is nothing but light strokes.

    Args:
        data: The file's bytes.
        max_pixels: A picture whose header says more is refused before it is decoded.
        side: Pixels that it is going to be fitted to. A JPEG is then decoded at the smallest
            scale that is at least twice as large, which takes a fraction of the time.

    Returns:
        uint8, (H, W, 3).

    Raises:
        PictureError: It is no picture of these formats, damaged, or too large.
    """
    with _refusals(max_pixels):
        picture = _open(io.BytesIO(data), max_pixels)
        if side:
            picture.draft(None, (2 * side, 2 * side))
        ImageOps.exif_transpose(picture, in_place=True)
        return _to_rgb(picture)


def load_picture(path: Source, *, side: int | None = None) -> npt.NDArray[np.uint8]:
    """Read and decode a file; as `decode_picture`."""
    with _refusals(MAX_PIXELS):
        data = path.read_bytes()
    return decode_picture(data, side=side)


def _open(file: IO[bytes], max_pixels: int) -> Image.Image:
    with _OPENING, warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        picture = Image.open(file, formats=tuple(FORMATS))
    _check_size(*picture.size, max_pixels)
    return picture


@contextmanager
def _refusals(max_pixels: int) -> Iterator[None]:
    """Turn all that is raised over a bad file into one error."""
    try:
        yield
    except (PictureError, MemoryError):
        raise
    except Image.DecompressionBombError:
        raise PictureError(f"more than the {max_pixels:,} pixels that are read") from None
    except UnidentifiedImageError:
        raise PictureError("not a PNG, JPEG, WebP or BMP picture") from None
    except OSError as error:
        raise PictureError(error.strerror or f"damaged: {_first_line(error)}") from None
    except Exception as error:  # a damaged file makes Pillow's parsers raise almost anything
        raise PictureError(f"damaged: {_first_line(error)}") from None


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__


def _check_size(width: int, height: int, most: int) -> None:
    if width * height > most:
        raise PictureError(f"{width} × {height} pixels are more than the {most:,} that are read")


def _to_rgb(picture: Image.Image) -> npt.NDArray[np.uint8]:
    if picture.mode in _DEEP:  # 16 bits a pixel, which Pillow would clip
        values = np.asarray(picture, np.float32)
        grey = values / 257 if values.max(initial=0) > 255 else values
        picture = Image.fromarray(grey.round().clip(0, 255).astype(np.uint8))
    if picture.has_transparency_data:
        return _lay_on_paper(np.asarray(picture.convert("RGBA"), np.float32))
    return np.asarray(picture if picture.mode == "RGB" else picture.convert("RGB"))


def _lay_on_paper(pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    colours, opacity = pixels[..., :3], pixels[..., 3:] / 255
    drawn = float(opacity.sum())
    light = drawn > 0 and float((colours * opacity).sum()) / (3 * drawn) > 127.5
    light &= drawn < opacity.size / 2  # a light sheet that fills the picture is paper itself
    blended = colours * opacity + (0 if light else 255) * (1 - opacity)
    return blended.round().astype(np.uint8)
