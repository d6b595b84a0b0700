"""Pictures of no digit: letters of fonts, noise, boxes and scribbles, as `predict` sees them.

Every kind has two disjoint halves, `tune` to choose settings and `test` to report: other fonts,
and other random numbers.
"""

from __future__ import annotations

import string
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from vggnet.inference.reading import Reading, see

Pixels = npt.NDArray[np.uint8]
Half = Literal["tune", "test"]

DIGIT_SHAPED = "OIlZSBGq"
"""Letters that are drawn like a digit, and left out."""

ALSO_SIMILAR = "oisz"
"""Small letters of the same shape, kept: the issue's list leaves them in."""

LETTERS = "".join(sorted(set(string.ascii_letters) - set(DIGIT_SHAPED)))

_SIDE = 128
_ANGLES = (-12, 0, 12)


def find_fonts(half: Half) -> list[Path]:
    """Return the fonts of a half: every second family with all letters on this machine."""
    from matplotlib import font_manager

    files = {Path(font.fname).name: font for font in font_manager.fontManager.ttflist}
    families: dict[str, list[Path]] = {}
    for font in files.values():
        if _has_letters(font.fname):
            family = font.name.removesuffix(" Condensed")
            families.setdefault(family, []).append(Path(font.fname))
    names = sorted(families)[0 if half == "tune" else 1 :: 2]
    return sorted(path for name in names for path in families[name])


def _has_letters(path: str) -> bool:
    from matplotlib.ft2font import FT2Font

    try:
        found = FT2Font(path)
    except (OSError, RuntimeError):
        return False
    symbols = any(word in path for word in ("Siz", "cmex", "cmsy", "cmmi", "Symbol", "LastResort"))
    return not symbols and all(found.get_char_index(ord(one)) for one in LETTERS)


def draw_letters(half: Half, letters: str = LETTERS) -> Iterator[Pixels]:
    """Draw each letter in each font at three angles, black on white, (H, W, 3)."""
    for path in find_fonts(half):
        font = ImageFont.truetype(str(path), 72)
        for letter in letters:
            for angle in _ANGLES:
                image = Image.new("L", (_SIDE, _SIDE), 255)
                center = (_SIDE / 2, _SIDE / 2)
                ImageDraw.Draw(image).text(center, letter, fill=0, font=font, anchor="mm")
                turned = image.rotate(angle, Image.Resampling.BICUBIC, fillcolor=255)
                yield np.asarray(turned.convert("RGB"))


def draw_noise(half: Half, count: int) -> Iterator[Pixels]:
    """Draw blots: noise, smoothed at a random scale and cut at a random level."""
    generator = np.random.default_rng([0, half == "test"])
    for _ in range(count):
        noise = generator.normal(size=(_SIDE, _SIDE))
        smooth = ndimage.gaussian_filter(noise, generator.uniform(2, 12))
        dark = smooth > np.quantile(smooth, generator.uniform(0.6, 0.9))
        dark[:8] = dark[-8:] = dark[:, :8] = dark[:, -8:] = False
        yield np.repeat(np.where(dark, 0, 255).astype(np.uint8)[..., np.newaxis], 3, axis=2)


def draw_boxes(half: Half, count: int) -> Iterator[Pixels]:
    """Draw filled, empty and hatched boxes, at most twice as long as wide, turned."""
    generator = np.random.default_rng([1, half == "test"])
    for number in range(count):
        image = Image.new("L", (_SIDE, _SIDE), 255)
        draw = ImageDraw.Draw(image)
        long = generator.uniform(40, 80)
        sides = np.array([long, long * generator.uniform(0.5, 1)])[generator.permutation(2)]
        left, top = (_SIDE - sides) / 2
        right, bottom = (_SIDE + sides) / 2
        width = int(generator.integers(4, 10))
        draw.rectangle((left, top, right, bottom), 0 if number % 3 == 0 else 255, 0, width)
        if number % 3 == 1:
            for x in np.arange(left, right, 3 * width):
                draw.line((x, top, x, bottom), 0, width)
        turned = image.rotate(generator.uniform(0, 90), Image.Resampling.BICUBIC, fillcolor=255)
        yield np.asarray(turned.convert("RGB"))


def draw_scribbles(half: Half, count: int) -> Iterator[Pixels]:
    """Draw one smooth line through 8 to 16 random points."""
    generator = np.random.default_rng([2, half == "test"])
    for _ in range(count):
        points = generator.uniform(24, _SIDE - 24, (int(generator.integers(8, 17)), 2))
        fine = np.linspace(0, len(points) - 1, 40 * len(points))
        path = [ndimage.map_coordinates(points[:, axis], [fine], order=3) for axis in (0, 1)]
        image = Image.new("L", (_SIDE, _SIDE), 255)
        width = int(generator.integers(4, 9))
        ImageDraw.Draw(image).line(list(zip(*path, strict=True)), 0, width, "curve")
        yield np.asarray(image.convert("RGB"))


def prepare(images: Iterator[Pixels]) -> Pixels:
    """Return what the network sees of images in which something is drawn, (N, 1, 28, 28)."""
    shape = (1, 28, 28)
    return np.concatenate([one for image in images for one in see(image, Reading.DRAWN, shape)])[
        :, np.newaxis
    ]


def unlike_digits(half: Half, count: int = 600) -> dict[str, Pixels]:
    """Return all kinds by name; there are `count` pictures of each but letters."""
    return {
        "letters": prepare(draw_letters(half)),
        "noise": prepare(draw_noise(half, count)),
        "boxes": prepare(draw_boxes(half, count)),
        "scribbles": prepare(draw_scribbles(half, count)),
    }
