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

_PIPE_WIDTH = 120
"""Columns for the table in a pipe, which has no width."""
_NAME_WIDTH = 12
"""Minimum width of the table's first column, which wraps."""


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
    table = _build_table(section.table)
    unlimited = console.options.update(max_width=10_000)
    if console.measure(table, options=unlimited).minimum <= console.width:
        console.print(table)
    else:
        for name, *cells in section.table.rows:
            values = zip(section.table.columns[1:], cells, strict=True)
            text = ", ".join(f"{column} {cell}" for column, cell in values)
            console.print(f"\n{name}\n    {text}", markup=False)
    for note in section.notes:
        console.print(note, markup=False, soft_wrap=not terminal)
    for what, command in report.commands:
        console.print(f"\n{what}:\n    {command}", markup=False, soft_wrap=True)
    console.print("\n" + "\n".join(map(str, paths)), markup=False, soft_wrap=True)


def _build_table(content: Table) -> RichTable:
    # With each range below its median, six columns fit into 80 characters.
    rows = [(name, *(cell.replace(" (", "\n(") for cell in cells)) for name, *cells in content.rows]
    table = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for number, column in enumerate(content.columns):
        title = column.replace(" ", "\n", 1)
        lines = "\n".join([title, *(row[number] for row in rows)]).splitlines()
        justify: Literal["left", "right"] = "right" if number else "left"
        min_width = max(map(len, lines)) if number else _NAME_WIDTH
        table.add_column(title, justify=justify, min_width=min_width, no_wrap=number > 0)
    for row in rows:
        table.add_row(*map(Text, row))
    return table
