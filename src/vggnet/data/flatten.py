"""Decoded images to 8 bits, grey or RGB, without transparency."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from vggnet.errors import ImageError

DEEP = ("I", "I;16", "I;16B", "I;16L", "F")
"""Pillow's modes of grey images with more than 8 bits."""

_DEPTHS = (8, 10, 12, 14, 16)
"""Bits that the values of a 16-bit image can have."""

_STRIP = 256
"""Rows that are converted at a time, so that no copy of a large image is made."""


def flatten(image: Image.Image, bit_depth: int | None) -> Image.Image:
    """Return an image in mode L or RGB, without transparency.

    Transparent pixels become white, or black if the image has only light strokes.

    Args:
        image: In any of Pillow's modes.
        bit_depth: Bits of the values in a deep image; None: as its largest value needs.

    Raises:
        ImageError: Its values are not those of an image.
    """
    if image.mode in DEEP:
        image = _scale(image, bit_depth or needed_depth(image))
    if image.has_transparency_data:
        return _lay_on_paper(image if image.mode == "RGBA" else image.convert("RGBA"))
    if image.mode == "1":
        return image.convert("L")
    return image if image.mode in ("L", "RGB") else image.convert("RGB")


def needed_depth(image: Image.Image) -> int:
    """Return the bits that the values of a deep image need, or 1 for fractions from 0 to 1."""
    if image.format == "PPM":  # Pillow scales it by the largest value that its header allows
        return 16
    values = np.asarray(image)
    highest = values.max(initial=0)
    if not np.isfinite(highest) or highest > 65_535:
        raise ImageError(f"it has values up to {highest:g}; the limit is 65,535")
    if image.mode == "F" and highest <= 1:
        return 1
    return next(depth for depth in _DEPTHS if highest < 2**depth)


def _scale(image: Image.Image, bit_depth: int) -> Image.Image:
    """Return a deep image with 8 bits, in which the largest value of `bit_depth` is white."""
    values = np.asarray(image)
    if not np.isfinite(values.sum(dtype=np.float64)):
        raise ImageError("it contains NaN or infinity")
    scaled = np.empty(values.shape, np.uint8)
    unit = np.float32((2**bit_depth - 1) / 255)
    for rows in _strips(len(values)):
        scaled[rows] = (values[rows].astype(np.float32) / unit).round().clip(0, 255)
    return Image.fromarray(scaled)


def _lay_on_paper(image: Image.Image) -> Image.Image:
    """Return an RGBA image in L or RGB, on white or, behind light strokes only, on black."""
    if opaque := _take_opaque(image):
        return opaque
    width, height = image.size
    strips = [(0, rows.start, width, min(rows.stop, height)) for rows in _strips(height)]
    drawn = weight = 0.0
    for box in strips:
        pixels = np.asarray(image.crop(box), np.float32)
        opacity = pixels[..., 3:] / 255
        drawn += float(opacity.sum())
        weight += float((pixels[..., :3] * opacity).sum())
    light = drawn > 0 and weight / (3 * drawn) > 127.5
    light &= drawn < width * height / 2  # a light sheet that fills the image is paper itself
    paper = 0 if light else 255
    flat = Image.new("RGB", image.size)
    for box in strips:
        pixels = np.asarray(image.crop(box), np.float32)
        opacity = pixels[..., 3:] / 255
        blended = pixels[..., :3] * opacity + paper * (1 - opacity)
        flat.paste(Image.fromarray(blended.round().astype(np.uint8)), box)
    return flat


def _take_opaque(image: Image.Image) -> Image.Image | None:
    """Return an RGBA image in L or RGB if no pixel is transparent, as from a browser's canvas."""
    *color, alpha = image.split()
    if alpha.getextrema() != (255, 255):
        return None
    is_grey = color[0].tobytes() == color[1].tobytes() == color[2].tobytes()
    return color[0] if is_grey else Image.merge("RGB", color)


def _strips(height: int) -> Sequence[slice]:
    return [slice(at, at + _STRIP) for at in range(0, height, _STRIP)]
