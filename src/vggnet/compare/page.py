"""A report as one self-contained HTML page: no script, nothing fetched, everything escaped."""

from __future__ import annotations

from html import escape
from importlib.resources import files

from vggnet.compare.figures import Bars, Figure, Lines, Stacks, legend, render_lines
from vggnet.compare.section import Report, Section, Table

# Even if a text slipped through unescaped, a browser would neither run nor fetch anything.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def render_html(report: Report, title: str = "vggnet compare") -> str:
    """Return the page, which opens with the answer; `title` is the command that made it."""
    style = files("vggnet.compare").joinpath("page.css").read_text(encoding="utf-8")
    more = "".join(f"<p>{escape(sentence)}</p>" for sentence in report.more)
    commands = "".join(
        f"<p>{escape(what)}:</p><pre class=wrap>{escape(command)}</pre>"
        for what, command in report.commands
    )
    body = "".join(_render_section(section) for section in (report.main, *report.sections))
    return (
        "<!doctype html>\n"
        '<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{style}</style></head><body>"
        f'<p class="kicker">{escape(title)}</p>'
        f"<h1>{escape(report.answer)}</h1>"
        f'<div class="more">{more}</div>'
        f"{commands}{body}</body></html>\n"
    )


def _render_section(section: Section) -> str:
    parts = [f"<h2>{escape(section.title)}</h2>"]
    if section.figure:
        parts.append(_render_figure(section.figure))
    if section.table:
        parts.append(_render_table(section.table))
    parts += [f'<p class="note">{escape(text)}</p>' for text in section.text]
    if section.fold:
        parts.append(
            "<details><summary>torch.utils.collect_env</summary>"
            f"<pre>{escape(section.fold)}</pre></details>"
        )
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


def _render_figure(figure: Figure) -> str:
    match figure:
        case Lines():
            drawn = render_lines(figure) + legend([series.name for series in figure.series])
            title = f"{figure.title}, {figure.y_label}"
        case Bars():
            drawn, title = _render_bars(figure), figure.title
        case Stacks():
            drawn, title = _render_stacks(figure) + legend(figure.parts), figure.title
    return f"<figure><figcaption>{escape(title)}</figcaption>{drawn}</figure>"


def _render_bars(chart: Bars) -> str:
    most = max(bar.high for bar in chart.bars)
    return "".join(
        f'<div class="bar s{0 if number == 0 else 6}"><div class="name"><span>{escape(bar.label)}'
        f'</span><b>{escape(bar.text)}</b></div><div class="track">'
        f'<div class="fill" style="width:{100 * bar.value / most:.2f}%"></div>'
        f'<div class="whisker" style="left:{100 * bar.low / most:.2f}%;'
        f'width:{100 * (bar.high - bar.low) / most:.2f}%"></div></div></div>'
        for number, bar in enumerate(chart.bars)
    )


def _render_stacks(chart: Stacks) -> str:
    most = max(sum(values) for _, values in chart.stacks) or 1.0
    drawn = []
    for label, values in chart.stacks:
        fills = "".join(
            f'<div class="fill s{number}" style="width:{100 * value / most:.2f}%"></div>'
            for number, value in enumerate(values)
        )
        drawn.append(
            f'<div class="bar stack"><div class="name"><span>{escape(label)}</span>'
            f'<b>{sum(values):,.4g}</b></div><div class="track">{fills}</div></div>'
        )
    return "".join(drawn)
