"""Figures as SVG and HTML; the colours come from page.css, so dark mode and print work.

docs/decisions/report-charts.md explains why no plotting library draws them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from vggnet.report.document import BarChart, Figure, LineChart, Series, StackedBars

_WIDTH, _HEIGHT = 480, 300
"""In the chart's own units; on a 390-pixel phone the 14-unit text is 10 pixels high."""
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 12, 14, 44
_COLORS = 8
"""Classes s0 to s7 in page.css, after Okabe and Ito's palette."""


def render_figure(figure: Figure) -> str:
    """Return a `<figure>` element. All text in it is escaped."""
    match figure:
        case LineChart():
            drawn = _render_lines(figure) + _legend([series.name for series in figure.series])
            title = f"{figure.title}, {figure.y_label}"
        case BarChart():
            drawn, title = _render_bars(figure), figure.title
        case StackedBars():
            drawn, title = _render_stacks(figure) + _legend(figure.parts), figure.title
    return f"<figure><figcaption>{escape(title)}</figcaption>{drawn}</figure>"


@dataclass(frozen=True)
class _Axis:
    """Maps values to coordinates."""

    low: float
    high: float
    log: bool
    start: float
    end: float

    def __call__(self, value: float) -> float:
        low, high, at = (math.log(one) if self.log else one for one in (self.low, self.high, value))
        fraction = (at - low) / (high - low) if high > low else 0.5
        return self.start + fraction * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Return round values on the axis: two to seven, powers of ten on a long log axis."""
        if self.log and self.low > 0:
            first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
            for leading in ((1.0, 2.0, 5.0), (1.0, 3.0), (1.0,)):
                found = [by * 10.0**power for power in range(first, last + 1) for by in leading]
                found = [one for one in found if self.low * 0.999 <= one <= self.high * 1.001]
                if 2 <= len(found) <= 7:
                    return found
        if self.high <= self.low:
            return [self.low]
        raw = (self.high - self.low) / 5
        power = 10.0 ** math.floor(math.log10(raw))
        step = next(by * power for by in (1, 2, 5, 10) if by * power >= raw)
        numbers = range(math.ceil(self.low / step), math.floor(self.high / step + 1e-9) + 1)
        return [number * step for number in numbers]


def _render_lines(chart: LineChart) -> str:
    xs = [x for series in chart.series for x in series.x]
    # A loss of zero has no logarithm: show everything below 1e-6 as 1e-6.
    floor = 1e-6 if chart.log_y else 0.0
    ys = [max(floor, y) for one in chart.series for y in (*one.y, *one.low, *one.high)]
    x = _Axis(min(xs), max(xs), chart.log_x, _LEFT + 8, _WIDTH - _RIGHT - 8)
    y = _Axis(min(ys) if chart.log_y else 0.0, max(ys), chart.log_y, _HEIGHT - _BOTTOM, _TOP)
    parts = []
    for tick in y.ticks():
        parts.append(_element("line", "grid", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=y(tick), y2=y(tick)))
        parts.append(_text(_LEFT - 6, y(tick) + 4.5, _number(tick), "end"))
    last = -math.inf
    for tick in sorted(set(xs)) if chart.log_x else x.ticks():
        if x(tick) - last > 30:  # otherwise the labels would overlap
            last = x(tick)
            parts.append(_text(last, _HEIGHT - _BOTTOM + 18, _number(tick)))
    parts.append(_text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 6, chart.x_label))
    for number, series in enumerate(chart.series):
        parts += _render_series(series, number, x, y, floor)
    head = f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(chart.title)}">'
    return f"{head}{''.join(parts)}</svg>"


def _render_series(series: Series, number: int, x: _Axis, y: _Axis, floor: float) -> list[str]:
    """Draw a line with its error bars, and dots if there are few points."""
    color = f"s{number % _COLORS}"
    at = [(x(one), y(max(floor, two))) for one, two in zip(series.x, series.y, strict=True)]
    points = " ".join(f"{left:.1f},{top:.1f}" for left, top in at)
    # Every line but the first is dashed: lines that coincide stay visible.
    dash = f"{6 + 3 * (number % 3)} {3 + 2 * (number % 4)}" if number else "none"
    drawn = [_element("polyline", f"line {color}", points=points, stroke_dasharray=dash)]
    drawn += [
        _element("line", f"line {color}", x1=left, x2=left, y1=y(low), y2=y(high))
        for (left, _), low, high in zip(at, series.low, series.high, strict=False)
    ]
    if len(at) <= 12:
        drawn += [_element("circle", f"dot {color}", cx=left, cy=top, r=4) for left, top in at]
    return drawn


def _element(name: str, css: str, **attributes: float | str) -> str:
    words = [
        f'{key.replace("_", "-")}="{value if isinstance(value, str) else f"{value:.1f}"}"'
        for key, value in attributes.items()
    ]
    return f'<{name} class="{css}" {" ".join(words)}/>'


def _text(x: float, y: float, text: str, anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _number(value: float) -> str:
    """Write an axis label."""
    if value >= 1e6:
        return f"{value / 1e6:g} M"
    return f"{value / 1e3:g} k" if value >= 1e4 else f"{value:.4g}"


def _legend(names: Sequence[str]) -> str:
    items = "".join(
        f'<li><span class="swatch s{number % _COLORS}"></span>{escape(name)}</li>'
        for number, name in enumerate(names)
    )
    return f'<ul class="legend">{items}</ul>'


def _render_bars(chart: BarChart) -> str:
    """Draw the first bar in its own colour, since it is the fastest."""
    most = max(bar.high for bar in chart.bars)
    return "".join(
        _bar(
            bar.label,
            bar.text,
            _box(f"fill s{6 if number else 0}", bar.value / most)
            + _box("whisker", (bar.high - bar.low) / most, left=bar.low / most),
        )
        for number, bar in enumerate(chart.bars)
    )


def _render_stacks(chart: StackedBars) -> str:
    most = max(sum(values) for _, values in chart.stacks) or 1.0
    return "".join(
        _bar(
            label,
            f"{sum(values):,.4g}",
            "".join(_box(f"part s{number}", value / most) for number, value in enumerate(values)),
        )
        for label, values in chart.stacks
    )


def _bar(label: str, text: str, boxes: str) -> str:
    name = f'<div class="name"><span>{escape(label)}</span><b>{escape(text)}</b></div>'
    return f'<div class="bar">{name}<div class="track">{boxes}</div></div>'


def _box(css: str, width: float, left: float | None = None) -> str:
    """Return a box; `width` and `left` are fractions of the track."""
    offset = "" if left is None else f"left:{100 * left:.2f}%;"
    return f'<div class="{css}" style="{offset}width:{100 * width:.2f}%"></div>'
