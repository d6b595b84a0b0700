"""What `vggnet compare` prints while it measures."""

from __future__ import annotations

import time
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn

from vggnet.cli.progress import BarDisplay
from vggnet.compare.plan import Observer


class TerminalObserver(BarDisplay, Observer):
    """A bar on a terminal, lines in a pipe, both on standard error.

    Args:
        quiet: Print only warnings.
    """

    def __init__(self, quiet: bool) -> None:
        super().__init__(
            Console(stderr=True, highlight=False, soft_wrap=True, quiet=quiet),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TimeRemainingColumn(),
            redraw=0.5,  # 0.06 % of the time that is measured
        )
        self._started = time.perf_counter()
        self._expected = self._done = 0.0

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def began(self, what: str) -> None:
        """Show the phase in the bar, or print it with the time left."""
        self._progress.update(self._task, description=what, refresh=True)
        if self._progress.disable:
            left = f" · about {_duration(self._left())} left" if self._expected else ""
            self._console.print(what + left, markup=False)

    def expected(self, seconds: float) -> None:
        """Start the bar."""
        self._expected, self._started = seconds, time.perf_counter()
        self._progress.update(self._task, total=seconds)
        if not self._progress.disable:
            self._console.print(f"measuring for about {_duration(seconds)}", markup=False)

    def advanced(self, seconds: float) -> None:
        """Advance the bar."""
        self._done += seconds
        if self._due():
            self._progress.update(self._task, completed=self._done, refresh=True)

    def _left(self) -> float:
        """Return the rest of the estimate, scaled by how long the done part took."""
        if not self._done:
            return self._expected
        pace = (time.perf_counter() - self._started) / self._done
        return max(0.0, self._expected - self._done) * pace


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
