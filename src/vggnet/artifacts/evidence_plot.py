"""Draw where the evidence for a prediction lies, as PNG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vggnet.artifacts.plots import Fonts, build_figure, save_figure

FOR, AGAINST = np.array([213, 94, 0]), np.array([0, 114, 178])
"""Orange and blue of Okabe and Ito's palette."""


@dataclass(frozen=True)
class EvidenceRow:
    """One image and its maps."""

    caption: str
    image: npt.NDArray[np.uint8]
    """(C, H, W)."""
    maps: Sequence[tuple[str, npt.NDArray[np.float32]]]
    """Title and values, (H, W): positive for the prediction, negative against it."""


def overlay(image: npt.NDArray[np.uint8], heat: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Paint evidence over an image, orange for and blue against, the strongest opaque.

    Args:
        image: (C, H, W). Grey images are shown dark on white, and paler.
        heat: (H, W).

    Returns:
        (H, W, 3).
    """
    ground = to_rgb(image).mean(axis=2, keepdims=True) * 0.6 + 0.4 * 255
    strength = np.abs(heat)[..., np.newaxis] / max(float(np.abs(heat).max()), 1e-12)
    color = np.where(heat[..., np.newaxis] > 0, FOR, AGAINST)
    painted: npt.NDArray[np.uint8] = (ground * (1 - strength) + color * strength).astype(np.uint8)
    return painted


def to_rgb(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return an image (C, H, W) as people see it, (H, W, 3): strokes in grey dark on white."""
    if image.shape[0] < 3:
        return np.repeat(255 - image[0][..., np.newaxis], 3, axis=2)
    return np.moveaxis(image[:3], 0, -1)


def render_evidence(path: Path, rows: Sequence[EvidenceRow]) -> None:
    """Draw each image beside its maps.

    Raises:
        OutputError: The file cannot be written.
    """
    columns = 1 + max(len(row.maps) for row in rows)
    figure = build_figure(2.1 * columns, 2.35 * len(rows) + 0.7)
    titles = [title for row in rows for title, _ in row.maps]
    fonts = Fonts("".join([*titles, *(row.caption for row in rows)]))
    figure.suptitle("Evidence for the prediction: orange for it, blue against it", fontsize=10)
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for row, line in zip(rows, grid, strict=True):
        panels = [(row.caption, to_rgb(row.image))]
        panels += [(title, overlay(row.image, heat)) for title, heat in row.maps]
        for axes, (title, shown) in zip(line, panels, strict=False):
            axes.imshow(shown)
            axes.set_title(fonts.replace(title), fontsize=9, **fonts.style)
    save_figure(figure, path)
