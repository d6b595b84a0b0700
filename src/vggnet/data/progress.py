"""How far a wait is, on a terminal's standard error."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

_MANY = 32
"""What is shorter than this is over before a bar is drawn."""


def track(items: Iterable[T], what: str, total: int) -> Iterator[T]:
    """Give the items on, with a bar that is gone at the end; none in a pipe or for a few.

    Of several processes that torchrun started the first draws it.

    Args:
        items: Anything that takes its time.
        what: A word or two for what happens.
        total: How many items there will be.
    """
    first = os.environ.get("RANK", "0") == "0"
    if total < _MANY or not first or not sys.stderr.isatty():
        yield from items
        return
    from rich.console import Console
    from rich.progress import track as draw_bar

    yield from draw_bar(items, what, total=total, console=Console(stderr=True), transient=True)


@contextlib.contextmanager
def count_bytes(total: int) -> Iterator[Callable[[int], None]]:
    """Give a function to report bytes to, which draws a bar on a terminal; 0: nobody knows."""
    if not sys.stderr.isatty():
        yield lambda count: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

    columns = BarColumn(), DownloadColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=total or None)
        yield lambda count: progress.advance(task, count)
