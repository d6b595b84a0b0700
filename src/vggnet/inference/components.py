"""Connected parts of a mask, by runs and union-find."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Component:
    """Pixels that touch each other, corners included."""

    top: int
    left: int
    bottom: int
    """One beyond the last row."""
    right: int
    """One beyond the last column."""
    area: int
    """Pixels."""
    label: int
    """Its number in the labelled image, from 1 on."""


def find_components(
    mask: npt.NDArray[np.bool_],
) -> tuple[npt.NDArray[np.int32], list[Component]]:
    """Label the connected parts of a mask.

    Args:
        mask: (H, W).

    Returns:
        Labels (H, W), 0 where the mask is not set; and the components, largest first.
    """
    rows, starts, ends = _find_runs(mask)
    roots = _join(rows, starts, ends)
    labels = np.zeros(mask.shape, np.int32)
    numbers = np.unique(roots, return_inverse=True)[1] + 1
    for row, start, end, number in zip(rows, starts, ends, numbers, strict=True):
        labels[row, start:end] = number
    found = _measure(numbers, rows, starts, ends)
    return labels, sorted(found, key=lambda one: -one.area)


Indices = npt.NDArray[np.int64]


def _find_runs(mask: npt.NDArray[np.bool_]) -> tuple[Indices, Indices, Indices]:
    """Return row, start and end of every run of set pixels, row by row."""
    padded = np.pad(mask, ((0, 0), (1, 1)))
    change = np.diff(padded.astype(np.int8), axis=1)
    rows, starts = np.nonzero(change == 1)
    ends = np.nonzero(change == -1)[1]
    return rows, starts, ends


def _measure(numbers: Indices, rows: Indices, starts: Indices, ends: Indices) -> list[Component]:
    """Return the bounds and the area of each part, in the order of their numbers, from its runs.

    All at once: one after the other, the 65,536 dots of a hostile image took 5 s and not 0.2.
    """
    parts, count = numbers - 1, int(numbers.max(initial=0))
    top, left = (np.full(count, np.iinfo(np.int64).max) for _ in range(2))
    bottom, right, area = (np.zeros(count, np.int64) for _ in range(3))
    np.minimum.at(top, parts, rows)
    np.minimum.at(left, parts, starts)
    np.maximum.at(bottom, parts, rows + 1)
    np.maximum.at(right, parts, ends)
    np.add.at(area, parts, ends - starts)
    columns = (one.tolist() for one in (top, left, bottom, right, area))
    labels = range(1, count + 1)
    return [Component(*one) for one in zip(*columns, labels, strict=True)]


def _join(rows: Indices, starts: Indices, ends: Indices) -> Indices:
    """Return for each run the lowest run that it is connected with."""
    parents = list(range(len(rows)))

    def find(run: int) -> int:
        while parents[run] != run:
            parents[run] = parents[parents[run]]
            run = parents[run]
        return run

    first = 0  # of the row above that may still touch
    for run, (row, start, end) in enumerate(zip(rows, starts, ends, strict=True)):
        while rows[first] < row - 1 or (rows[first] == row - 1 and ends[first] < start):
            first += 1
        above = first
        while rows[above] == row - 1 and starts[above] <= end:
            one, other = find(run), find(above)
            parents[max(one, other)] = min(one, other)
            above += 1
    return np.array([find(run) for run in range(len(rows))], np.int64)
