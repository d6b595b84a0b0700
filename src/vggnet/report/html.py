"""A report as one self-contained HTML page: no script, no requests, all text escaped."""

from __future__ import annotations

from html import escape
from importlib.resources import files

from vggnet.report.charts import render_figure
from vggnet.report.document import Report, Section, Table

# If some text slipped through unescaped, a browser would still run and fetch nothing.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def render_html(report: Report, title: str) -> str:
    """Return the page. `title` is the command that made the report."""
    style = files("vggnet.report").joinpath("page.css").read_text(encoding="utf-8")
    remarks = "".join(f"<p>{escape(sentence)}</p>" for sentence in report.remarks)
    commands = "".join(
        f"<p>{escape(what)}:</p><pre class=wrap>{escape(command)}</pre>"
        for what, command in report.commands
    )
    body = "".join(_render_section(section) for section in report.all_sections)
    return (
        "<!doctype html>\n"
        '<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{style}</style></head><body>"
        f'<p class="kicker">{escape(title)}</p>'
        f"<h1>{escape(report.answer)}</h1>"
        f'<div class="remarks">{remarks}</div>'
        f"{commands}{body}</body></html>\n"
    )


def _render_section(section: Section) -> str:
    parts = [f"<h2>{escape(section.title)}</h2>"]
    if section.figure:
        parts.append(render_figure(section.figure))
    if section.table:
        parts.append(_render_table(section.table))
    parts += [f'<p class="note">{escape(text)}</p>' for text in section.notes]
    if section.fold:
        title, text = map(escape, section.fold)
        parts.append(f"<details><summary>{title}</summary><pre>{text}</pre></details>")
    return "".join(parts)


def _render_table(table: Table) -> str:
    columns = [escape(column) for column in table.columns]
    rows = "".join(
        "<tr>"
        + "".join(
            f'<td data-label="{column}">{escape(cell)}</td>'
            for column, cell in zip(columns, row, strict=True)
        )
        + "</tr>"
        for row in table.rows
    )
    if not any(columns):
        return f'<table class="facts"><tbody>{rows}</tbody></table>'
    head = "".join(f"<th>{column}</th>" for column in columns)
    kind = "wide" if len(columns) > 2 else "pair"
    return (
        f'<div class="scroll"><table class="{kind}"><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )
