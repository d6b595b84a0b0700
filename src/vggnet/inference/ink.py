"""An image of something drawn ► how much ink there is on each pixel, whatever the paper.

Paper is what is left when everything narrower than a window is closed (a maximum filter, then
a minimum filter), so light that falls unevenly and shadows are paper, strokes are not. Ink is
what darkens the paper, as a share of its brightness; each colour is seen on its own, since
red ink is invisible in red light, and chalk is ink on an image turned to its negative.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image

Floats = npt.NDArray[np.float32]

PAPER_SIDE = 96
"""Pixels that the paper is estimated on: light changes slowly."""

WINDOW = 0.3
"""Of the shorter side; strokes are narrower, shadows are wider."""

LEAST_LIGHT = 32.0
"""Paper, of 255: below it, shares of its brightness mean nothing."""

LEAST_INK = 0.1
"""Share of the paper's brightness that ink must take away to be told from the paper's grain."""

_FEW = 8
"""Pixels: of a digit that is small on its sheet no more may show."""

LEAST_CONTRAST = 5.0
"""Ink over the paper's grain; texture that looks like neither is taken for paper."""


@dataclass(frozen=True)
class Ink:
    """What is on the paper."""

    amount: Floats
    """On each pixel, 0 to 1, (H, W)."""
    darkness: float
    """Share of the paper's light that it takes away where it is 1."""


def find_ink(image: npt.NDArray[np.uint8]) -> Ink | None:
    """Tell ink from paper; None where there is no ink.

    Args:
        image: uint8, (H, W, 3) or (H, W).
    """
    channels = np.atleast_3d(image)
    if (channels == channels[..., :1]).all():  # grey: one colour says it all
        channels = channels[..., :1]
    colours = channels.astype(np.float32)
    seen = [_darkness(colours[..., index]) for index in range(colours.shape[2])]
    # A colour counts as much as it shows.
    weights = np.array([_strength(one) ** 2 for one in seen], np.float32)
    if weights.sum() == 0:
        return None
    darkness = sum(w * one for w, one in zip(weights / weights.sum(), seen, strict=True))
    return _scale(np.asarray(darkness, np.float32))


def _darkness(channel: Floats) -> Floats:
    """Return what the ink takes away of one colour's light, as a share of the paper's."""
    if _is_light_on_dark(channel):
        channel = 255 - channel
    paper = _estimate_paper(channel)
    return np.clip((paper - channel) / np.maximum(paper, LEAST_LIGHT), 0, 1)


def _is_light_on_dark(channel: Floats) -> bool:
    """Whether what stands out is lighter than its surroundings: strokes are few, paper is much."""
    small = _resize(channel, PAPER_SIDE)
    padded = np.pad(small, max(small.shape) // 4, mode="edge")
    apart = small - _box_mean(padded, 2 * (max(small.shape) // 4) + 1)
    return float((apart**3).sum()) > 0


def _estimate_paper(channel: Floats) -> Floats:
    small = _resize(channel, PAPER_SIDE)
    reach = max(1, round(WINDOW * min(small.shape) / 2))
    closed = -_local_maximum(-_local_maximum(small, reach), reach)
    padded = np.pad(closed, reach // 2, mode="edge")
    smooth = _box_mean(padded, 2 * (reach // 2) + 1)
    height, width = channel.shape
    large = Image.fromarray(smooth).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(large, np.float32)


def _resize(values: Floats, most: int) -> Floats:
    height, width = values.shape
    by = min(1.0, most / max(height, width))
    size = (max(1, round(width * by)), max(1, round(height * by)))
    return np.asarray(Image.fromarray(values).resize(size, Image.Resampling.BOX), np.float32)


def _local_maximum(values: Floats, reach: int) -> Floats:
    for _ in range(2):  # rows, then columns
        padded = np.pad(values, ((0, 0), (reach, reach)), mode="symmetric")
        values = sliding_window_view(padded, 2 * reach + 1, axis=1).max(axis=-1).T
    return values


def _box_mean(padded: Floats, side: int) -> Floats:
    values = padded
    for _ in range(2):
        values = sliding_window_view(values, side, axis=1).mean(axis=-1).T
    return values


def _strength(darkness: Floats) -> float:
    """Return how dark the ink is, over the paper's grain; 0 where there is none to be told."""
    grain = 1.4826 * float(np.median(np.abs(darkness - np.median(darkness))))
    ink = _ink_level(darkness)
    return ink if ink > max(LEAST_INK, LEAST_CONTRAST * grain) else 0.0


def _ink_level(darkness: Floats) -> float:
    """Return the median of what is at least half as dark as the darkest few pixels."""
    # By a histogram: NumPy's partition takes 3 ms where most values are equal, this 0.2.
    counts = np.bincount((255 * darkness).astype(np.uint8).ravel(), minlength=256)
    at_least = counts[::-1].cumsum()[::-1]
    most = int(np.flatnonzero(at_least >= min(_FEW, darkness.size))[-1])
    half = -(-most // 2)
    middle = at_least[half] / 2
    return float(np.flatnonzero(at_least >= middle)[-1]) / 255


def _scale(darkness: Floats) -> Ink:
    level = _ink_level(darkness)
    grain = float(np.median(darkness))
    low = min(0.4 * level, 2 * grain)
    amount = np.clip((darkness - low) / (level - low), 0, 1)
    return Ink(amount.astype(np.float32), level)
