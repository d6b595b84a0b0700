"""An image of a digit becomes the same digit without dirt and shadows, in MNIST's style."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from vggnet.inference.components import Component, find_components
from vggnet.inference.draw import Box, draw_digit
from vggnet.inference.ink import Floats, find_ink

WORK_SIDE = 512
"""Pixels of the longer side of the image in which ink is searched, at most."""

SPECK = 0.04
"""Fraction of the largest part's area. Smaller parts are dirt."""

PALE = 0.75
"""Fraction of the largest part's ink. Paler parts are the corner of a shadow."""

RIM = 0.6
"""Fraction of the light. Paler ink that reaches the edge of the image is a shadow."""

_GRAIN = 8
"""Pixels that are averaged to find shadows without the paper's grain."""

LEAST_SIDE = 5
"""Pixels of the image. If the largest part is smaller, there is only dust."""

CRUMB = 40
"""Pixels. If the largest part is smaller, it may be the paper's grain along a soft shadow."""

_SOFT = 2
"""Pixels around a stroke in which its soft edge lies."""


def prepare_digit(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8] | None:
    """Find the digit in an image and redraw it in MNIST's style.

    Args:
        image: uint8, (H, W, 3) or (H, W): dark on light or light on dark, of any size and at
            any position.

    Returns:
        uint8, (28, 28), white on black; None if nothing is drawn.
    """
    drawing = find_drawing(image)
    return None if drawing is None else draw_digit(drawing.ink)


@dataclass(frozen=True)
class Drawing:
    """The ink of a drawing and its parts, cut out of an image."""

    ink: Floats
    """0 to 1, (H, W), zero outside of the parts."""
    labels: npt.NDArray[np.int32]
    """Number of the part that each pixel belongs to, (H, W); 0: none."""
    parts: tuple[Component, ...]
    """The largest first."""
    top: int
    """First row of the image that is in `ink`."""
    left: int
    """First column, likewise."""


def find_drawing(image: npt.NDArray[np.uint8]) -> Drawing | None:
    """Find a drawing at a resolution that shows its strokes; None if there is none.

    A small drawing on a large sheet is cut out and searched again at a higher resolution.
    """
    box = (0, 0, image.shape[1], image.shape[0])
    found = None
    for _ in range(3):
        region, by = _shrink(image, box)
        found = _look(region)
        if found is None:
            return None
        largest = found.parts[0]
        side = max(largest.bottom - largest.top, largest.right - largest.left)
        if side < LEAST_SIDE * by:
            return None
        nearer = _bounds(found, region.shape[:2], by, box)
        if by == 1 or _area(nearer) > 0.5 * _area(box):
            return found
        box = nearer
    return found


def _shrink(image: npt.NDArray[np.uint8], box: Box) -> tuple[npt.NDArray[np.uint8], float]:
    left, top, right, bottom = box
    by = min(1.0, WORK_SIDE / max(right - left, bottom - top))
    region = image[top:bottom, left:right]
    if by == 1:
        return region, by
    size = max(1, round((right - left) * by)), max(1, round((bottom - top) * by))
    return np.asarray(Image.fromarray(region).resize(size, Image.Resampling.BOX)), by


def _look(region: npt.NDArray[np.uint8]) -> Drawing | None:
    """Find the ink of a region without the dirt."""
    found = find_ink(region)
    if found is None:
        return None
    ink = found.amount
    mask = ink > 0.5
    if found.darkness < RIM:
        mask &= ~_find_shadows(ink)
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return None
    top, left = max(0, int(rows[0]) - _SOFT), max(0, int(columns[0]) - _SOFT)
    place = slice(top, rows[-1] + 1 + _SOFT), slice(left, columns[-1] + 1 + _SOFT)
    ink, mask = ink[place], mask[place]
    labels, components = find_components(mask)
    parts = tuple(_drop_dirt(ink, labels, components))
    if _are_crumbs(parts):
        return None
    keep = np.zeros(len(components) + 1, bool)
    keep[[one.label for one in parts]] = True
    drawn = _spread(keep[labels], _SOFT)
    return Drawing(np.where(drawn, ink, np.float32(0)), labels, parts, top, left)


def _drop_dirt(
    ink: Floats, labels: npt.NDArray[np.int32], found: list[Component]
) -> Iterator[Component]:
    """Yield the parts that are strokes: not much smaller or paler than the largest one."""
    darkness = _find_darkness(ink, labels)
    for part in found:
        large = part.area >= SPECK * found[0].area
        if large and darkness[part.label - 1] >= PALE * darkness[found[0].label - 1]:
            yield part


def _find_darkness(ink: Floats, labels: npt.NDArray[np.int32]) -> Floats:
    """Return the 0.9 quantile of each part's ink, in steps of 1/255, (parts,)."""
    inside = labels > 0
    part = labels[inside]
    # One sort for all parts: there may be 65,536, in a hostile image.
    keys = np.sort((part.astype(np.int64) << 8) + (255 * ink[inside]).astype(np.int64))
    counts = np.bincount(part)[1:]
    places = np.cumsum(counts) - counts + np.round(0.9 * (counts - 1)).astype(int)
    levels: Floats = (keys[places] & 255).astype(np.float32) / np.float32(255)
    return levels


def _are_crumbs(parts: tuple[Component, ...]) -> bool:
    """Whether parts are so many and so small that they are grain and not strokes.

    Soft shadows that were taken for drawings fell into 7 to 1,110 parts, the largest of 5 to
    27 pixels.
    """
    return parts[0].area < min(CRUMB, 2 * len(parts))


def _find_shadows(ink: Floats) -> npt.NDArray[np.bool_]:
    """Return the mask of ink that, without its grain, reaches the edge of the image."""
    height, width = ink.shape
    coarse = np.asarray(Image.fromarray(ink).reduce(_GRAIN)) > 0.25
    labels, found = find_components(coarse)
    shadows = np.zeros(len(found) + 1, bool)
    for edge in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        shadows[edge] = True
    shadows[0] = False
    shadow = _spread(shadows[labels], 1)
    return shadow.repeat(_GRAIN, axis=0).repeat(_GRAIN, axis=1)[:height, :width]


def _spread(mask: npt.NDArray[np.bool_], reach: int) -> npt.NDArray[np.bool_]:
    """Add the pixels up to `reach` away to a mask; SciPy's maximum filter takes 5 times as long."""
    down = mask.copy()
    for by in range(1, reach + 1):
        down[by:] |= mask[:-by]
        down[:-by] |= mask[by:]
    spread = down.copy()
    for by in range(1, reach + 1):
        spread[:, by:] |= down[:, :-by]
        spread[:, :-by] |= down[:, by:]
    return spread


def _bounds(found: Drawing, shape: tuple[int, ...], by: float, box: Box) -> Box:
    """Return the box of a drawing in the whole image, with some paper around it."""
    top = found.top + min(one.top for one in found.parts)
    left = found.left + min(one.left for one in found.parts)
    bottom = found.top + max(one.bottom for one in found.parts)
    right = found.left + max(one.right for one in found.parts)
    margin = max(4.0, 0.25 * max(bottom - top, right - left))
    return (
        box[0] + int(max(0.0, left - margin) / by),
        box[1] + int(max(0.0, top - margin) / by),
        box[0] + int(min(float(shape[1]), right + margin) / by),
        box[1] + int(min(float(shape[0]), bottom + margin) / by),
    )


def _area(box: Box) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])
