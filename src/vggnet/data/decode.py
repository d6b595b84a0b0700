"""Encoded images to pixels: PNG, JPEG, WebP and BMP, in whatever mode they come."""

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
from vggnet.errors import ImageError

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
    """What the first bytes of an image file say."""

    side: int
    """Pixels of the longer side."""
    grey: bool


def read_header(path: Source) -> Header:
    """Read an image's size and kind, not its pixels.

    Raises:
        ImageError: It is no image of these formats, or too large.
    """
    with _refusals(MAX_PIXELS), path.open("rb") as file:
        image = _open(file, MAX_PIXELS)
        return Header(max(image.size), image.mode in ("1", "L", "LA", *_DEEP))


def decode_image(
    data: bytes, *, max_pixels: int = MAX_PIXELS, side: int | None = None
) -> npt.NDArray[np.uint8]:
    """Decode an image; of several frames the first, turned upright as its EXIF data say.

    What is transparent becomes paper: white, or black where there is nothing but light strokes.

    Args:
        data: The file's bytes.
        max_pixels: An image whose header says more is refused before it is decoded.
        side: Pixels that it is going to be fitted to. A JPEG is then decoded at the smallest
            scale that is at least twice as large, which takes a fraction of the time.

    Returns:
        uint8, (H, W, 3).

    Raises:
        ImageError: It is no image of these formats, damaged, or too large.
    """
    with _refusals(max_pixels):
        image = _open(io.BytesIO(data), max_pixels)
        if side:
            image.draft(None, (2 * side, 2 * side))
        ImageOps.exif_transpose(image, in_place=True)
        return _to_rgb(image)


def load_image(path: Source, *, side: int | None = None) -> npt.NDArray[np.uint8]:
    """Read and decode a file; as `decode_image`."""
    with _refusals(MAX_PIXELS):
        data = path.read_bytes()
    return decode_image(data, side=side)


def _open(file: IO[bytes], max_pixels: int) -> Image.Image:
    with _OPENING, warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        image = Image.open(file, formats=tuple(FORMATS))
    _check_size(*image.size, max_pixels)
    return image


@contextmanager
def _refusals(max_pixels: int) -> Iterator[None]:
    """Turn all that is raised over a bad file into one error."""
    try:
        yield
    except (ImageError, MemoryError):
        raise
    except Image.DecompressionBombError:
        raise ImageError(f"more than the {max_pixels:,} pixels that are read") from None
    except UnidentifiedImageError:
        raise ImageError("not a PNG, JPEG, WebP or BMP image") from None
    except OSError as error:
        raise ImageError(error.strerror or f"damaged: {_first_line(error)}") from None
    except Exception as error:  # a damaged file makes Pillow's parsers raise almost anything
        raise ImageError(f"damaged: {_first_line(error)}") from None


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__


def _check_size(width: int, height: int, most: int) -> None:
    if width * height > most:
        raise ImageError(f"{width} × {height} pixels are more than the {most:,} that are read")


def _to_rgb(image: Image.Image) -> npt.NDArray[np.uint8]:
    if image.mode in _DEEP:  # 16 bits a pixel, which Pillow would clip
        values = np.asarray(image, np.float32)
        grey = values / 257 if values.max(initial=0) > 255 else values
        image = Image.fromarray(grey.round().clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        return _lay_on_paper(np.asarray(image.convert("RGBA"), np.float32))
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _lay_on_paper(pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    colours, opacity = pixels[..., :3], pixels[..., 3:] / 255
    drawn = float(opacity.sum())
    light = drawn > 0 and float((colours * opacity).sum()) / (3 * drawn) > 127.5
    light &= drawn < opacity.size / 2  # a light sheet that fills the image is paper itself
    blended = colours * opacity + (0 if light else 255) * (1 - opacity)
    return blended.round().astype(np.uint8)
