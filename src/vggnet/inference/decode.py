"""Encoded pictures to pixels: PNG, JPEG, WebP and BMP, in whatever mode they come."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from vggnet.errors import PictureError

FORMATS = {"PNG": (".png",), "JPEG": (".jpg", ".jpeg"), "WEBP": (".webp",), "BMP": (".bmp",)}
"""What is read, by the name that Pillow gives it, with its suffixes."""

MAX_PIXELS = 200_000_000
"""By default; a picture of so many takes some 600 MB, more than any phone's camera makes."""


def decode_picture(data: bytes, *, max_pixels: int = MAX_PIXELS) -> npt.NDArray[np.uint8]:
    """Decode a picture; of several frames the first, turned upright as its EXIF data say.

    What is transparent becomes paper: white, or black where the picture is light.

    Args:
        data: The file's bytes.
        max_pixels: A picture whose header says more is refused before it is decoded.

    Returns:
        uint8, (H, W, 3).

    Raises:
        PictureError: It is no picture of these formats, damaged, or too large.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            picture = Image.open(io.BytesIO(data), formats=tuple(FORMATS))
        _check_size(*picture.size, max_pixels)
        return _to_rgb(ImageOps.exif_transpose(picture))
    except (PictureError, MemoryError):
        raise
    except Image.DecompressionBombError:
        raise PictureError(f"more than the {max_pixels:,} pixels that are read") from None
    except UnidentifiedImageError:
        raise PictureError("not a PNG, JPEG, WebP or BMP picture") from None
    except Exception as error:  # a damaged file makes Pillow's parsers raise almost anything
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise PictureError(f"damaged: {reason}") from None


def load_picture(path: Path) -> npt.NDArray[np.uint8]:
    """Read and decode a file; as `decode_picture`."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise PictureError(error.strerror or str(error)) from None
    return decode_picture(data)


def _check_size(width: int, height: int, most: int) -> None:
    if width * height > most:
        raise PictureError(f"{width} × {height} pixels are more than the {most:,} that are read")


def _to_rgb(picture: Image.Image) -> npt.NDArray[np.uint8]:
    if picture.mode in ("I", "I;16", "I;16B", "F"):  # 16 bits a pixel, which Pillow would clip
        values = np.asarray(picture, np.float32)
        grey = values / 257 if values.max(initial=0) > 255 else values
        picture = Image.fromarray(grey.round().clip(0, 255).astype(np.uint8))
    if picture.has_transparency_data:
        return _lay_on_paper(np.asarray(picture.convert("RGBA"), np.float32))
    return np.asarray(picture.convert("RGB"))


def _lay_on_paper(pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    colours, opacity = pixels[..., :3], pixels[..., 3:] / 255
    drawn = float(opacity.sum())
    light = drawn > 0 and float((colours * opacity).sum()) / (3 * drawn) > 127.5
    blended = colours * opacity + (0 if light else 255) * (1 - opacity)
    return blended.round().astype(np.uint8)
