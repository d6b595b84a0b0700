"""Any picture of a digit ► 28×28, as MNIST draws it.

MNIST's digits were fitted into 20×20 pixels, keeping their shape, and placed with their centre
of mass at the centre of 28×28, anti-aliased (LeCun et al., http://yann.lecun.com/exdb/mnist).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from vggnet.inference.components import Component, find_components
from vggnet.inference.ink import Floats, find_ink

SIDE, BOX = 28, 20
"""Pixels of a picture, and of the box that a digit is fitted into."""

FINE = 4
"""Strokes are drawn so many times finer, and then averaged: that is their anti-aliasing."""

WORK_SIDE = 512
"""Pixels, at most, of the longer side of what ink is looked for on."""

SPECK = 0.04
"""Of the largest part's area; what is smaller is dirt."""

PALE = 0.75
"""Of the largest part's ink; what is paler is the corner of a shadow."""

RIM = 0.6
"""Share of the light: paler ink that runs out of the picture is the rim of a shadow."""

_GRAIN = 8
"""Pixels that are averaged to see a shadow and not the paper's grain."""

LEAST_SIDE = 5
"""Pixels of the picture; a largest part that is smaller is dust."""

CRUMB = 40
"""Pixels, at most, of the largest part of what is only the paper's grain along a soft shadow."""

STROKES = (1.9, 3.6)
"""Pixels of a stroke's width in the 20×20 box. Between these lie nine tenths of MNIST's."""


def prepare_digit(picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8] | None:
    """Find the digit in a picture and draw it as MNIST would.

    Args:
        picture: uint8, (H, W, 3) or (H, W): dark on light or light on dark, at any place and
            size.

    Returns:
        uint8, (28, 28), white on black; None where nothing is drawn.
    """
    drawing = find_drawing(picture)
    return None if drawing is None else draw_digit(drawing.ink)


Box = tuple[int, int, int, int]
"""Left, top, right, bottom; the last two are one beyond."""


@dataclass(frozen=True)
class Drawing:
    """The ink of a drawing and its parts, cut out of a picture."""

    ink: Floats
    """0 to 1, (H, W), with some paper around."""
    labels: npt.NDArray[np.int32]
    """Which part each pixel belongs to, (H, W); 0: none."""
    parts: tuple[Component, ...]
    """Largest first."""


def find_drawing(picture: npt.NDArray[np.uint8]) -> Drawing | None:
    """Find what is drawn, at a resolution that shows its strokes; None where nothing is."""
    box = (0, 0, picture.shape[1], picture.shape[0])
    found = None
    for _ in range(3):  # a small digit on a large sheet is looked at again, from nearer
        region, by = _shrink(picture, box)
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


def draw_digit(ink: Floats) -> npt.NDArray[np.uint8]:
    """Draw ink, (H, W), 0 to 1, as MNIST does: uint8, (28, 28)."""
    ink = np.pad(ink, 2)  # so that strokes at the picture's edge end softly, too
    box = _find_box(ink)
    if max(box[2] - box[0], box[3] - box[1]) < BOX:
        ink = _resolve(ink)
        box = _find_box(ink)
    fine = _fit(ink, box, FINE * BOX)
    grow = _missing_width(fine)
    if grow:
        fine = _fit(ink, box, FINE * BOX - 2 * grow)
        fine = _thicken(fine, grow) if grow > 0 else _thin(fine, -grow)
    return _centre(fine)


def _shrink(picture: npt.NDArray[np.uint8], box: Box) -> tuple[npt.NDArray[np.uint8], float]:
    left, top, right, bottom = box
    by = min(1.0, WORK_SIDE / max(right - left, bottom - top))
    region = picture[top:bottom, left:right]
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

    def darkness(part: Component) -> float:
        window = slice(part.top, part.bottom), slice(part.left, part.right)
        return float(np.quantile(ink[window][labels[window] == part.label], 0.9))

    for part in found:
        large = part.area >= SPECK * found[0].area
        if large and darkness(part) >= PALE * darkness(found[0]):
            yield part


def _are_crumbs(parts: tuple[Component, ...]) -> bool:
    """Whether parts are so many and so small that they are grain: strokes hold together.

    Soft shadows that were taken for drawings fell into 7 to 1,110 parts, the largest of 5 to
    27 pixels.
    """
    return parts[0].area < min(CRUMB, 2 * len(parts))


def _find_shadows(ink: Floats) -> npt.NDArray[np.bool_]:
    """Return where ink, seen without its grain, runs out of the picture."""
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
    """Return the parts' box in the whole picture, with some paper around."""
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


def _find_box(ink: Floats) -> Box:
    rows, columns = (np.flatnonzero((ink > 0.5).any(axis=axis)) for axis in (1, 0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _resolve(ink: Floats) -> Floats:
    """Draw ink `FINE` times as large, with sharp edges and as much ink where each pixel was.

    Of a digit smaller than MNIST's a stroke is about a pixel wide, and its greys alone tell how
    wide. Each round sharpens, and gives back what that took from a pixel or gave to it (Irani
    and Peleg, "Improving Resolution by Image Registration", 1991). Sharpened alone, digits of
    half the size were read right 0.26 ± 0.07 points less often (4,000 held-out ones, six models).
    """
    height, width = ink.shape
    fine = _enlarge(ink)
    for _ in range(5):
        fine = np.clip((fine - 0.5) * 1.3 + 0.5, 0, 1)
        fine += _enlarge(ink - fine.reshape(height, FINE, width, FINE).mean(axis=(1, 3)))
    return fine.clip(0, 1)


def _enlarge(values: Floats) -> Floats:
    height, width = values.shape
    image = Image.fromarray(values).resize((FINE * width, FINE * height), Image.Resampling.BICUBIC)
    return np.array(image, np.float32)


def _fit(ink: Floats, box: Box, side: int) -> Floats:
    """Scale a box so that its longer side is `side`, keep its shape, and sharpen its edges."""
    left, top, right, bottom = box
    by = side / max(right - left, bottom - top)
    size = max(1, round((right - left) * by)), max(1, round((bottom - top) * by))
    margin = 2 / by  # of the fine raster
    room = (left - margin, top - margin, right + margin, bottom + margin)
    around = int(np.ceil(max(0.0, margin - 2))) + 1
    padded = np.pad(ink, around)
    source = (room[0] + around, room[1] + around, room[2] + around, room[3] + around)
    image = Image.fromarray(padded).resize(
        (size[0] + 4, size[1] + 4), Image.Resampling.BICUBIC, box=source
    )
    # A bicubic picture of an edge that is one pixel wide is `by` fine pixels wide.
    steepness = max(1.0, by)
    sharp: Floats = np.clip((np.asarray(image, np.float32) - 0.5) * steepness + 0.5, 0, 1)
    return sharp


def stroke_width(fine: Floats) -> float:
    """Return the mean width of strokes in pixels: twice their area over their perimeter."""
    padded = np.pad(fine, 1)
    across, down = np.diff(padded, axis=1)[:-1], np.diff(padded, axis=0)[:, :-1]
    perimeter = float(np.hypot(across, down).sum())
    return 2 * float(fine.sum()) / perimeter if perimeter else 0.0


def _missing_width(fine: Floats) -> int:
    """Return the fine pixels by which strokes must grow on either side, or shrink (negative)."""
    width = stroke_width(fine) / FINE
    low, high = STROKES
    wanted = min(max(width, low), high)
    return round(FINE * (wanted - width) / 2)


def _thicken(fine: Floats, radius: int) -> Floats:
    """Move every edge outwards, as a round pen of some radius would; (H + 2r, W + 2r)."""
    height, width = fine.shape
    grown = np.zeros((height + 2 * radius, width + 2 * radius), np.float32)
    steps = range(-radius, radius + 1)
    for down, right in itertools.product(steps, steps):
        if down * down + right * right <= radius * radius + 1:
            top, left = radius + down, radius + right
            place = grown[top : top + height, left : left + width]
            np.maximum(place, fine, out=place)
    return grown


def _thin(fine: Floats, radius: int) -> Floats:
    """Move every edge inwards; (H, W)."""
    paper = np.pad(1 - fine, radius, constant_values=1)
    thinned: Floats = 1 - _thicken(paper, radius)
    return thinned[2 * radius : -2 * radius, 2 * radius : -2 * radius]


def _centre(fine: Floats) -> npt.NDArray[np.uint8]:
    """Put the centre of mass at the centre of 28×28 and average to that resolution."""
    side = FINE * SIDE
    rows, columns = (np.arange(length) + 0.5 for length in fine.shape)
    mass = float(fine.sum())
    centre = (float(fine.sum(1) @ rows) / mass, float(fine.sum(0) @ columns) / mass)
    canvas = np.zeros((3 * side, 3 * side), np.float32)
    top, left = (round(1.5 * side - at) for at in centre)
    canvas[top : top + fine.shape[0], left : left + fine.shape[1]] = fine
    middle = canvas[side : 2 * side, side : 2 * side]
    small = middle.reshape(SIDE, FINE, SIDE, FINE).mean(axis=(1, 3))
    drawn: npt.NDArray[np.uint8] = (255 * small).round().astype(np.uint8)
    return drawn
