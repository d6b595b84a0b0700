"""Encoded image files to pixels: which formats are read is decided by content, not by name."""

from __future__ import annotations

import io
import re
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil
from typing import IO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from vggnet.data.files import File
from vggnet.data.flatten import DEEP, flatten, needed_depth
from vggnet.data.image import fit
from vggnet.data.image_cost import (
    READABLE,
    UnknownFormatError,
    check_cost,
    find_format,
    read_jpeg_frame,
)
from vggnet.data.memory import MemoryBudget
from vggnet.errors import ImageError

FORMATS: dict[str, tuple[str, ...]] = {
    "PNG": (".png",),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "WEBP": (".webp",),
    "BMP": (".bmp", ".dib"),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".pgm", ".ppm", ".pbm", ".pnm"),
}
"""What is read, under Pillow's names, with the suffixes that files of it have."""

SUFFIXES: tuple[str, ...] = tuple(suffix for group in FORMATS.values() for suffix in group)

MAX_PIXELS = 178_956_970
"""Pixels of the largest image that is decoded by default; Pillow's own limit."""

_CUT = re.compile(r"(RGB[AX]?|LA);16")
"""Pillow's layouts of 16-bit colour."""

_JPEG = b"\xff\xd8\xff"

_HEADER_BYTES = 1 << 16
"""Bytes of a file in which most headers are complete."""

_LARGEST_FILE = 1 << 30
"""Bytes; no encoded image within `MAX_PIXELS` is larger, except by what it does not need."""

_LARGE_FILE = 1 << 26
"""Bytes of a file from which on only one is in memory at a time."""

_BYTES_PER_PIXEL = 14
"""Memory that the decoded image takes in other forms: upright, in RGB, and as an array."""

_OPENING = threading.Lock()
"""Folders are read by several threads, and the filter of warnings is one for all of them."""


@dataclass(frozen=True)
class Header:
    """What the first bytes of an image file say."""

    side: int
    """Pixels of the longer side."""
    grey: bool
    deep: bool
    """Whether it is grey with more than 8 bits; see `find_bit_depth`."""
    cut: bool
    """Whether it is in colour with 16 bits, of which Pillow keeps the upper 8."""


def read_header(file: File) -> Header:
    """Read an image's size and kind, not its pixels.

    Raises:
        UnknownFormatError: It is no image.
        ImageError: It is damaged, too large, costs too much, or cannot be read.
    """
    with _image_errors(MAX_PIXELS), file.open() as opened:
        start = opened.read(_HEADER_BYTES)
        find_format(start)
        if start.startswith(_JPEG) and (header := _read_jpeg_header(start)):
            return header
        try:
            if len(start) < _HEADER_BYTES:
                check_cost(start)
            image = _open(start, MAX_PIXELS)
        except Exception:
            if len(start) < _HEADER_BYTES:
                raise
            data = start + _read(opened, file)  # the header is longer, or at the end
            check_cost(data)
            image = _open(data, MAX_PIXELS)
    tiles = getattr(image, "tile", [])  # of an ImageFile, which `open` returns
    cut = any(_CUT.search(str(tile[3])) for tile in tiles)
    deep = image.mode in DEEP
    grey = image.mode in ("1", "L", "LA", *DEEP)
    return Header(max(image.size), grey, deep, cut)


def _read_jpeg_header(start: bytes) -> Header | None:
    """Read a JPEG's header in half of Pillow's time; None if it is not all in `start`."""
    try:
        frame = read_jpeg_frame(start)
    except (ImageError, struct.error, LookupError, ArithmeticError):
        return None  # Pillow says what is wrong, if anything is
    if not 0 < frame.width * frame.height <= MAX_PIXELS:
        return None
    return Header(max(frame.width, frame.height), frame.components == 1, deep=False, cut=False)


def decode_image(
    data: bytes,
    *,
    max_pixels: int = MAX_PIXELS,
    side: int | None = None,
    bit_depth: int | None = None,
    budget: MemoryBudget | None = None,
) -> npt.NDArray[np.uint8]:
    """Decode an image; of several frames the first, turned upright by its EXIF orientation.

    Transparent pixels become white, or black if the image has only light strokes.

    Args:
        data: The file's bytes.
        max_pixels: An image whose header says more is refused before it is decoded.
        side: Pixels a side that it will be fitted to. A JPEG is then decoded at the smallest
            scale that is at least as large, which takes a fraction of the time.
        bit_depth: Bits of the values in a 16-bit image; None: as its largest value needs.
        budget: Memory for decoding; None: half of what is free.

    Returns:
        uint8, (H, W, 3), or (H, W) if it is grey.

    Raises:
        UnknownFormatError: It is no image of the formats that are read.
        ImageError: It is damaged, too large, or there is not enough memory.
    """
    file = File("", "", len(data), 0, lambda: io.BytesIO(data))
    with _decoded(file, max_pixels, side, bit_depth, budget or MemoryBudget()) as image:
        return np.asarray(image)


def load_image(
    file: File, side: int | None = None, bit_depth: int | None = None
) -> npt.NDArray[np.uint8]:
    """Read and decode a file; as `decode_image`."""
    with _decoded(file, MAX_PIXELS, side, bit_depth, MemoryBudget()) as image:
        return np.asarray(image)


def convert_image(image: Image.Image) -> npt.NDArray[np.uint8]:
    """Convert a Pillow image: uint8, (H, W) or (H, W, 3), upright and without transparency.

    Raises:
        ImageError: It is damaged, or its values are not those of an image.
    """
    with _image_errors(MAX_PIXELS):
        return np.asarray(flatten(ImageOps.exif_transpose(image), None))


def load_fitted(
    file: File, channels: int, side: int, bit_depth: int | None, budget: MemoryBudget
) -> npt.NDArray[np.uint8]:
    """Decode a file and fit it into (channels, side, side); see `fit_image`.

    Raises:
        ImageError: As `decode_image`.
    """
    with _decoded(file, MAX_PIXELS, side, bit_depth, budget) as image:
        return fit(image, channels, side, side)


def find_bit_depth(file: File, budget: MemoryBudget) -> int:
    """Return the bits that the values of a grey image with more than 8 bits need.

    They are 8, 10, 12, 14 or 16, or 1 for fractions from 0 to 1. The largest of a folder is
    the depth of all its images: 10 and 12 bits are often stored in 16, and an image that is
    darker than others must stay so.

    Raises:
        ImageError: As `decode_image`.
    """
    with _opened(file, MAX_PIXELS, None, budget) as image:
        return needed_depth(image)


@contextmanager
def _decoded(
    file: File, max_pixels: int, side: int | None, bit_depth: int | None, budget: MemoryBudget
) -> Iterator[Image.Image]:
    """Hold an image decoded, in mode L or RGB, and the memory for it."""
    with _opened(file, max_pixels, side, budget) as image:
        ImageOps.exif_transpose(image, in_place=True)
        yield flatten(image, bit_depth)


@contextmanager
def _opened(
    file: File, max_pixels: int, side: int | None, budget: MemoryBudget
) -> Iterator[Image.Image]:
    """Hold an image that is ready to be decoded, and the memory for that."""
    with _image_errors(max_pixels), budget.one_large(file.size > _LARGE_FILE):
        with file.open() as opened:
            data = _read(opened, file)
        cost = check_cost(data, max_memory=budget.limit)
        image = _open(data, max_pixels)
        if side:
            # Compared with decoding all pixels, this changes a photo of 500 or 1,600 pixels at
            # 96 or 224 by 33 to 42 dB (PSNR); a bilinear filter instead of Lanczos, by 32 to 35.
            by = side / max(image.size)
            image.draft(None, (ceil(by * image.width), ceil(by * image.height)))
        size = len(data) + cost.memory + _BYTES_PER_PIXEL * image.width * image.height
        with budget.reserve(size):
            yield image


def _read(opened: IO[bytes], file: File) -> bytes:
    if file.size > _LARGEST_FILE:
        raise ImageError(f"{file.size / 1e9:,.1f} GB are too much for an image file")
    # Reading "up to 1 GiB" takes Python 90 µs more, for memory that it then gives back.
    return opened.read(file.size or _LARGEST_FILE)


def _open(data: bytes, max_pixels: int) -> Image.Image:
    with _OPENING, warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        image = Image.open(io.BytesIO(data), formats=tuple(FORMATS))
    width, height = image.size
    if width * height > max_pixels:
        raise ImageError(f"{width} × {height} pixels are more than the limit of {max_pixels:,}")
    return image


@contextmanager
def _image_errors(max_pixels: int) -> Iterator[None]:
    """Turn whatever a bad file raises into an ImageError."""
    try:
        yield
    except (ImageError, MemoryError):
        raise
    except Image.DecompressionBombError:
        raise ImageError(f"more pixels than the limit of {max_pixels:,}") from None
    except UnidentifiedImageError:
        raise UnknownFormatError(f"not a {READABLE} image") from None
    except OSError as error:
        raise ImageError(error.strerror or f"damaged: {_first_line(error)}") from None
    except Exception as error:  # a damaged file makes Pillow's parsers raise almost anything
        raise ImageError(f"damaged: {_first_line(error)}") from None


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
