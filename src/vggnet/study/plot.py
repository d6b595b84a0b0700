"""Plot a study as one PNG: accuracy, seconds and parameters over depth."""

from __future__ import annotations

import statistics
import textwrap
from collections.abc import Sequence
from pathlib import Path

from vggnet.artifacts.plots import BLUE, GREY, save_figure
from vggnet.study.report import Member

_COLUMNS = 110
"""Characters of the title per line."""


def render_study(path: Path, members: Sequence[Member], title: str) -> None:
    """Plot each run as a point and the means as a line.

    Raises:
        OutputError: The file cannot be written.
    """
    from matplotlib.figure import Figure  # takes 0.3 s

    figure = Figure(figsize=(11, 3.9), dpi=110, layout="constrained")
    panels = figure.subplots(1, 3)
    values: tuple[tuple[str, list[tuple[float, ...]]], ...] = (
        ("test accuracy, %", [member.accuracies for member in members]),
        ("training, seconds", [member.seconds for member in members]),
        ("parameters, millions", [(member.parameters / 1e6,) for member in members]),
    )
    depths = [member.depth for member in members]
    for axes, (label, spreads) in zip(panels, values, strict=True):
        axes.plot(depths, [statistics.mean(spread) for spread in spreads], "-", color=BLUE)
        for depth, spread in zip(depths, spreads, strict=True):
            axes.plot([depth] * len(spread), spread, "o", color=GREY, alpha=0.7, markersize=5)
        axes.set(title=label, xlabel="layers with weights")
        axes.set_xticks(
            depths, [f"{m.depth}\n{m.name.removeprefix('vgg-').upper()}" for m in members]
        )
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in panels[1:]:
        axes.set_ylim(bottom=0)
    figure.suptitle(textwrap.fill(title, _COLUMNS))
    save_figure(figure, path)
