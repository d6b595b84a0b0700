"""Any image of a digit ► what is drawn on it, without dirt and shadows, drawn as MNIST would."""

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
"""Pixels, at most, of the longer side of what ink is looked for on."""

SPECK = 0.04
"""Of the largest part's area; what is smaller is dirt."""

PALE = 0.75
"""Of the largest part's ink; what is paler is the corner of a shadow."""

RIM = 0.6
"""Share of the light: paler ink that runs out of the image is the rim of a shadow."""

_GRAIN = 8
"""Pixels that are averaged to see a shadow and not the paper's grain."""

LEAST_SIDE = 5
"""Pixels of the image; a largest part that is smaller is dust."""

CRUMB = 40
"""Pixels, at most, of the largest part of what is only the paper's grain along a soft shadow."""


def prepare_digit(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8] | None:
    """Find the digit in an image and draw it as MNIST would.

    Args:
        image: uint8, (H, W, 3) or (H, W): dark on light or light on dark, at any place and
            size.

    Returns:
        uint8, (28, 28), white on black; None where nothing is drawn.
    """
    drawing = find_drawing(image)
    return None if drawing is None else draw_digit(drawing.ink)


@dataclass(frozen=True)
class Drawing:
    """The ink of a drawing and its parts, cut out of an image."""

    ink: Floats
    """0 to 1, (H, W), with some paper around."""
    labels: npt.NDArray[np.int32]
    """Which part each pixel belongs to, (H, W); 0: none."""
    parts: tuple[Component, ...]
    """Largest first."""


def find_drawing(image: npt.NDArray[np.uint8]) -> Drawing | None:
    """Find what is drawn, at a resolution that shows its strokes; None where nothing is."""
    box = (0, 0, image.shape[1], image.shape[0])
    found = None
    for _ in range(3):  # a small digit on a large sheet is looked at again, from nearer
        region, by = _shrink(image, box)
        found = _look(region)
        if found is None:
            return None
        largest = found.parts[0]
        side = max(largest.bottom - largest.top, largest.right - largest.left)
        if side < LEAST_SIDE * by:
            return None
        nearer = _bounds(found.parts, region.shape[:2], by, box)
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
    """Find the ink of a region and drop the dirt."""
    found = find_ink(region)
    if found is None:
        return None
    ink = found.amount
    mask = ink > 0.5
    if found.darkness < RIM:
        mask &= ~_find_shadows(ink)
    labels, components = find_components(mask)
    parts = tuple(_drop_dirt(ink, labels, components))
    if not parts or _are_crumbs(parts):
        return None
    kept = np.isin(labels, [one.label for one in parts])
    # A stroke's soft edge is around its mask; all else is paper.
    return Drawing(np.where(_spread(kept, 2), ink, 0).astype(np.float32), labels, parts)


def _drop_dirt(
    ink: Floats, labels: npt.NDArray[np.int32], found: list[Component]
) -> Iterator[Component]:
    """Give the parts that are strokes: not much smaller and not much paler than the largest."""
    darkness = _darkness(ink, labels)
    for part in found:
        large = part.area >= SPECK * found[0].area
        if large and darkness[part.label - 1] >= PALE * darkness[found[0].label - 1]:
            yield part


def _darkness(ink: Floats, labels: npt.NDArray[np.int32]) -> Floats:
    """Return the 0.9 quantile of each part's ink, (parts,)."""
    inside = labels > 0
    values = ink[inside][np.lexsort((ink[inside], labels[inside]))]
    counts = np.bincount(labels[inside])[1:]
    first, place = np.cumsum(counts) - counts, 0.9 * (counts - 1)
    low, high = (values[first + whole(place).astype(int)] for whole in (np.floor, np.ceil))
    quantiles: Floats = low + (high - low) * (place % 1).astype(np.float32)
    return quantiles


def _are_crumbs(parts: tuple[Component, ...]) -> bool:
    """Whether parts are so many and so small that they are grain: strokes hold together.

    Soft shadows that were taken for drawings fell into 7 to 1,110 parts, the largest of 5 to
    27 pixels.
    """
    return parts[0].area < min(CRUMB, 2 * len(parts))


def _find_shadows(ink: Floats) -> npt.NDArray[np.bool_]:
    """Return where ink, seen without its grain, runs out of the image."""
    height, width = ink.shape
    coarse = np.asarray(Image.fromarray(ink).reduce(_GRAIN)) > 0.25
    labels, _ = find_components(coarse)
    rim = {*labels[0], *labels[-1], *labels[:, 0], *labels[:, -1]} - {0}
    shadow = _spread(np.isin(labels, list(rim)), 1)
    return shadow.repeat(_GRAIN, axis=0).repeat(_GRAIN, axis=1)[:height, :width]


def _spread(mask: npt.NDArray[np.bool_], reach: int) -> npt.NDArray[np.bool_]:
    for _ in range(reach):
        padded = np.pad(mask, 1)
        mask = padded[1:-1, 1:-1] | padded[:-2, 1:-1] | padded[2:, 1:-1]
        padded = np.pad(mask, 1)
        mask = mask | padded[1:-1, :-2] | padded[1:-1, 2:]
    return mask


def _bounds(
    parts: tuple[Component, ...],
    shape: tuple[int, ...],
    by: float,
    box: Box,
) -> Box:
    """Return the parts' box in the whole image, with some paper around."""
    top, left = min(one.top for one in parts), min(one.left for one in parts)
    bottom, right = max(one.bottom for one in parts), max(one.right for one in parts)
    margin = max(4.0, 0.25 * max(bottom - top, right - left))
    return (
        box[0] + int(max(0.0, left - margin) / by),
        box[1] + int(max(0.0, top - margin) / by),
        box[0] + int(min(float(shape[1]), right + margin) / by),
        box[1] + int(min(float(shape[0]), bottom + margin) / by),
    )


def _area(box: Box) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])
