"""A report as Markdown, to paste into an issue."""

from __future__ import annotations

import re

from vggnet.report.document import Report, Section, Table


def render_markdown(report: Report) -> str:
    """Return the answer, the tables and the notes, without the figures."""
    parts = [f"**{_escape(report.answer)}**", *map(_escape, report.remarks)]
    parts += [f"{_escape(what)}:\n\n    {command}" for what, command in report.commands]
    parts += [_render_section(section) for section in report.all_sections]
    return "\n\n".join(part for part in parts if part) + "\n"


def _render_section(section: Section) -> str:
    parts = [_render_table(section.table)] if section.table else []
    parts += [_escape(text) for text in section.notes]
    return "\n\n".join([f"### {_escape(section.title)}", *parts]) if parts else ""


def _render_table(table: Table) -> str:
    align = "---:" if any(table.columns) else "---"
    lines = [table.columns, ("---", *(align for _ in table.columns[1:])), *table.rows]
    return "\n".join(f"| {' | '.join(map(_escape, cells))} |" for cells in lines)


def _escape(text: str) -> str:
    """Escape every character that has a meaning in Markdown or HTML."""
    return re.sub(r"([\\`*_{}\[\]<>|#~$@&!])", r"\\\1", text)
