"""A report as Markdown, to paste into an issue."""

from __future__ import annotations

import re

from vggnet.compare.section import Report, Section, Table


def render_markdown(report: Report) -> str:
    """Return the answer, the tables and the notes; figures are the page's."""
    parts = [f"**{_plain(report.answer)}**", *map(_plain, report.more)]
    parts += [f"{_plain(what)}:\n\n    {command}" for what, command in report.commands]
    parts += [_render_section(section) for section in (report.main, *report.sections)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _render_section(section: Section) -> str:
    parts = [_render_table(section.table)] if section.table else []
    parts += [_plain(text) for text in section.text]
    if not parts:
        return ""
    return "\n\n".join([f"### {_plain(section.title)}", *parts])


def _render_table(table: Table) -> str:
    lines = [
        _line([_plain(column) for column in table.columns]),
        _line(["---", *["---:" if any(table.columns) else "---" for _ in table.columns[1:]]]),
        *(_line([_plain(cell) for cell in row]) for row in table.rows),
    ]
    return "\n".join(lines)


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _plain(text: str) -> str:
    """Take every meaning that Markdown or HTML gives to a character away from it."""
    return re.sub(r"([\\`*_{}\[\]<>|#~$@&!])", r"\\\1", text)
