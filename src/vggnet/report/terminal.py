"""A report on a terminal: the answer, the main table and the paths of the files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from vggnet.report.document import Report, Table

_PIPE_WIDTH = 100
"""Columns for the table in a pipe, which has no width."""


def print_report(report: Report, paths: Sequence[Path]) -> None:
    """Print what fits on a terminal; `paths` are the files that hold the rest."""
    console = Console(highlight=False)
    terminal = console.is_terminal
    if not terminal:
        console.width = max(console.width, _PIPE_WIDTH)
    section = report.main
    assert section.table
    console.print(f"\n{report.answer}", markup=False, style="bold", soft_wrap=not terminal)
    for sentence in report.remarks:
        console.print(sentence, markup=False, soft_wrap=not terminal)
    console.print(_build_table(section.table))
    for note in section.notes:
        console.print(note, markup=False, soft_wrap=not terminal)
    for what, command in report.commands:
        console.print(f"\n{what}:\n    {command}", markup=False, soft_wrap=True)
    console.print("\n" + "\n".join(map(str, paths)), markup=False, soft_wrap=True)


def _build_table(content: Table) -> RichTable:
    table = RichTable(box=box.SIMPLE_HEAD, pad_edge=False)
    for number, column in enumerate(content.columns):
        justify: Literal["left", "right"] = "right" if number else "left"
        table.add_column(column, justify=justify, no_wrap=number > 0)
    for row in content.rows:
        # With each range below its median, the table fits into 80 columns.
        table.add_row(Text(row[0]), *(Text(cell.replace(" (", "\n(")) for cell in row[1:]))
    return table
