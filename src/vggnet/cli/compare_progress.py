"""What `vggnet compare` prints: a bar while it measures, the answer and its table at the end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from vggnet.cli.terminal import warn
from vggnet.compare.observer import Observer
from vggnet.compare.section import Report

_REDRAW = 0.5
"""Seconds between two redrawings: each takes 0.3 ms of what is being timed, 0.06 % of it."""
_WIDTH = 100
"""Columns of the table in a pipe, which has no width of its own."""


class TerminalObserver(Observer):
    """A bar on a terminal, lines in a pipe, both on standard error.

    Args:
        quiet: Tell warnings alone.
    """

    def __init__(self, quiet: bool) -> None:
        self._console = Console(stderr=True, highlight=False, soft_wrap=True, quiet=quiet)
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            auto_refresh=False,  # a thread that redraws would take time from what is measured
            disable=quiet or not self._console.is_terminal,
        )
        self._task = self._progress.add_task("comparing", total=None)
        self._started = self._drawn = time.perf_counter()
        self._expected = self._done = 0.0

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def began(self, what: str) -> None:
        """Show it in the bar, or print it with the time that is left."""
        self._progress.update(self._task, description=what, refresh=True)
        if self._progress.disable:
            left = f" · about {_duration(self._left())} left" if self._expected else ""
            self._console.print(what + left, markup=False)

    def expected(self, seconds: float) -> None:
        """Start the bar."""
        self._expected, self._started = seconds, time.perf_counter()
        self._progress.update(self._task, total=seconds)
        if not self._progress.disable:
            self._console.print(f"about {_duration(seconds)} of measuring", markup=False)

    def advanced(self, seconds: float) -> None:
        """Move the bar, now and then."""
        self._done += seconds
        now = time.perf_counter()
        if self._progress.disable or now - self._drawn < _REDRAW:
            return
        self._drawn = now
        self._progress.update(self._task, completed=self._done, refresh=True)

    def warned(self, message: str) -> None:
        """Print a warning to standard error."""
        warn(message)

    def _left(self) -> float:
        """Estimate from what was expected, corrected by how long the done part of it took."""
        if not self._done:
            return self._expected
        pace = (time.perf_counter() - self._started) / self._done
        return max(0.0, self._expected - self._done) * pace


def print_report(report: Report, paths: Sequence[Path]) -> None:
    """Print the answer, the main table and where the rest is."""
    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = max(console.width, _WIDTH)
    section = report.main
    assert section.table
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_lines=False)
    for number, column in enumerate(section.table.columns):
        justify: Literal["left", "right"] = "right" if number else "left"
        table.add_column(column, justify=justify, no_wrap=number > 0)
    for row in section.table.rows:
        # A range goes under its median: 80 columns are enough for all figures then.
        table.add_row(Text(row[0]), *(Text(cell.replace(" (", "\n(")) for cell in row[1:]))
    console.print(f"\n{report.answer}", markup=False, style="bold")
    for sentence in report.more:
        console.print(sentence, markup=False)
    console.print(table, soft_wrap=False)
    for text in section.text:
        console.print(text, markup=False)
    for what, command in report.commands:
        console.print(f"\n{what}:\n    {command}", markup=False)
    console.print("\n" + "\n".join(map(str, paths)), markup=False)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
