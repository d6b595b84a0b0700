"""Connected parts of a mask."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_NEIGHBORS = np.ones((3, 3), bool)
"""Pixels are connected to all eight around them."""


@dataclass(frozen=True)
class Component:
    """A connected part."""

    top: int
    left: int
    bottom: int
    """One beyond the last row."""
    right: int
    """One beyond the last column."""
    area: int
    """Pixels."""
    label: int
    """Its number in the labeled image, from 1."""


def find_components(
    mask: npt.NDArray[np.bool_],
) -> tuple[npt.NDArray[np.int32], list[Component]]:
    """Label the connected parts of a mask.

    Args:
        mask: (H, W).

    Returns:
        Labels, int32 (H, W), 0 outside of the mask; and the components, the largest first.
    """
    from scipy import ndimage  # imported here: it takes 0.3 s, and training does not need it

    labels = np.empty(mask.shape, np.int32)
    ndimage.label(mask, _NEIGHBORS, output=labels)
    areas = np.bincount(labels.ravel())
    found = [
        Component(rows.start, columns.start, rows.stop, columns.stop, int(areas[label]), label)
        for label, (rows, columns) in enumerate(ndimage.find_objects(labels), 1)
    ]
    return labels, sorted(found, key=lambda one: -one.area)
