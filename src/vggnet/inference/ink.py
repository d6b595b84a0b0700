"""Find the ink on each pixel of an image of a drawing, on any paper.

A closing (a maximum filter, then a minimum filter) removes everything that is narrower than its
window: what remains is the paper with its shadows and uneven light. Ink is what darkens the
paper, as a fraction of its brightness. Each color channel is examined on its own, because red
ink is invisible in the red channel. Chalk is ink in the negative image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

Floats = npt.NDArray[np.float32]
Counts = npt.NDArray[np.int64]

PAPER_SIDE = 96
"""Pixels of the longer side when the paper is estimated: its light changes slowly."""

WINDOW = 0.3
"""Fraction of the shorter side. Strokes are narrower, shadows are wider."""

LEAST_LIGHT = 32.0
"""Brightness of paper, of 255. On darker paper, fractions of it are mostly noise."""

LEAST_INK = 0.1
"""Fraction of the paper's brightness that ink takes away at least."""

_FEW = 8
"""Pixels of ink at least. A small digit on a large sheet may not have more."""

LEAST_CONTRAST = 5.0
"""Ink over the paper's grain at least; weaker texture is paper."""


@dataclass(frozen=True)
class Ink:
    """The ink of an image."""

    amount: Floats
    """On each pixel, 0 to 1, (H, W)."""
    darkness: float
    """Fraction of the paper's light that ink of amount 1 takes away."""


def find_ink(image: npt.NDArray[np.uint8]) -> Ink | None:
    """Separate ink from paper.

    Args:
        image: uint8, (H, W, 3) or (H, W).

    Returns:
        None if there is no ink.
    """
    channels = list(np.moveaxis(np.atleast_3d(image), 2, 0))
    if all((channels[0] == other).all() for other in channels[1:]):  # grey: one is enough
        channels = channels[:1]
    found = [_find_darkness(channel.astype(np.float32)) for channel in channels]
    counts = [_count_levels(darkness) for darkness in found]
    # A channel counts as much as the ink shows in it.
    weights = np.array([_strength(one) ** 2 for one in counts], np.float32)
    if not weights.any():
        return None
    if len(found) == 1:
        return _scale(found[0], counts[0])
    average = np.average(found, axis=0, weights=weights)
    return _scale(average, _count_levels(average))


def _find_darkness(channel: Floats) -> Floats:
    """Return the fraction of the paper's light that is missing on each pixel, 0 to 1."""
    small = _resize(channel, PAPER_SIDE)
    if _is_light_on_dark(small):
        channel, small = 255 - channel, 255 - small
    paper = _estimate_paper(small, channel.shape)
    darkness: Floats = paper - channel
    light: Floats = np.maximum(paper, LEAST_LIGHT)
    darkness /= light
    return np.clip(darkness, 0, 1, out=darkness)


def _is_light_on_dark(small: Floats) -> bool:
    """Whether what stands out is lighter than its surroundings: strokes cover less than paper."""
    from scipy import ndimage  # imported here: it takes 0.3 s, and training does not need it

    side = 2 * (max(small.shape) // 4) + 1
    apart = small - ndimage.uniform_filter(small, side, mode="nearest")
    return float((apart * apart * apart).sum()) > 0


def _estimate_paper(small: Floats, shape: tuple[int, ...]) -> Floats:
    """Return the brightness of the paper on each pixel of the full size, or one if it is even."""
    from scipy import ndimage  # imported here, as above

    reach = max(1, round(WINDOW * min(small.shape) / 2))
    closed = ndimage.grey_closing(small, 2 * reach + 1)
    smooth = ndimage.uniform_filter(closed, 2 * (reach // 2) + 1, mode="nearest")
    if smooth.min() == smooth.max():
        return np.full((1, 1), smooth[0, 0], np.float32)
    height, width = shape
    large = Image.fromarray(smooth).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(large, np.float32)


def _resize(values: Floats, most: int) -> Floats:
    height, width = values.shape
    by = min(1.0, most / max(height, width))
    size = (max(1, round(width * by)), max(1, round(height * by)))
    return np.asarray(Image.fromarray(values).resize(size, Image.Resampling.BOX), np.float32)


def _count_levels(darkness: Floats) -> Counts:
    """Count the pixels of each darkness in steps of 1/255, (256,).

    Medians and quantiles of the counts cost nothing. NumPy's partition takes 3 ms if most values
    are equal.
    """
    levels = Image.fromarray((255 * darkness).astype(np.uint8))
    return np.array(levels.histogram(), np.int64)


def _median(counts: Counts) -> int:
    return int(np.searchsorted(counts.cumsum(), counts.sum() / 2))


def _strength(counts: Counts) -> float:
    """Return how dark the ink is, or 0 if it is not darker than the paper's grain."""
    middle = _median(counts)
    apart = np.bincount(np.abs(np.arange(256) - middle), counts).astype(np.int64)
    grain = 1.4826 * _median(apart) / 255
    ink = _ink_level(counts)
    return ink if ink > max(LEAST_INK, LEAST_CONTRAST * grain) else 0.0


def _ink_level(counts: Counts) -> float:
    """Return the median of all that is at least half as dark as the darkest few pixels."""
    at_least = counts[::-1].cumsum()[::-1]
    most = int(np.flatnonzero(at_least >= min(_FEW, at_least[0]))[-1])
    half = -(-most // 2)
    return float(np.flatnonzero(at_least >= at_least[half] / 2)[-1]) / 255


def _scale(darkness: Floats, counts: Counts) -> Ink:
    level, grain = _ink_level(counts), _median(counts) / 255
    low = min(0.4 * level, 2 * grain)
    amount = darkness - np.float32(low)
    amount /= np.float32(level - low)
    np.clip(amount, 0, 1, out=amount)
    return Ink(amount, level)
