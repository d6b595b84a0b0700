"""Split a row of digits, such as a number on a form, into single digits."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from vggnet.inference.components import Component
from vggnet.inference.draw import draw_digit
from vggnet.inference.prepare import find_drawing

OVERLAP = 0.5
"""Fraction of the narrower part. Two parts that overlap more belong to one digit."""


def split_digits(image: npt.NDArray[np.uint8]) -> list[npt.NDArray[np.uint8]]:
    """Split a row of digits that do not touch each other.

    Args:
        image: uint8, (H, W, 3) or (H, W).

    Returns:
        The digits from left to right, each uint8, (28, 28), white on black; none if nothing
        is drawn.
    """
    drawing = find_drawing(image)
    if drawing is None:
        return []
    digits = []
    for parts in _group(sorted(drawing.parts, key=lambda part: part.left)):
        top, left = min(one.top for one in parts), min(one.left for one in parts)
        bottom, right = max(one.bottom for one in parts), max(one.right for one in parts)
        # With the soft edge of its strokes, but without pixels of its neighbors.
        region = slice(max(0, top - 2), bottom + 2), slice(max(0, left - 2), right + 2)
        labels = drawing.labels[region]
        mine = np.isin(labels, [0, *(one.label for one in parts)])
        digits.append(draw_digit(np.where(mine, drawing.ink[region], 0).astype(np.float32)))
    return digits


def _group(parts: list[Component]) -> list[list[Component]]:
    """Group the parts of each digit: the bar of a 5 overlaps its body."""
    groups: list[list[Component]] = []
    for part in parts:
        if groups:
            right = max(one.right for one in groups[-1])
            left = min(one.left for one in groups[-1])
            shared = min(right, part.right) - part.left
            if shared > OVERLAP * min(right - left, part.right - part.left):
                groups[-1].append(part)
                continue
        groups.append([part])
    return groups
