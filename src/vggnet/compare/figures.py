"""Figures as data, and the SVG of a line chart; colours come from the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 480, 300
"""Of a chart's own coordinates; on a phone of 390 pixels its 14-pixel letters are 10 high."""
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 12, 14, 44
COLOURS = 8
"""In the style sheet: .s0 to .s7, after Okabe and Ito's palette."""


@dataclass(frozen=True)
class Series:
    """A line; `low` and `high` are its spread, where it has one."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()


@dataclass(frozen=True)
class Lines:
    """A line chart."""

    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    log_x: bool = False
    log_y: bool = False


@dataclass(frozen=True)
class Bar:
    """A value, the range it was seen in, and how to write it."""

    label: str
    value: float
    low: float
    high: float
    text: str


@dataclass(frozen=True)
class Bars:
    """A bar chart."""

    title: str
    bars: tuple[Bar, ...]


@dataclass(frozen=True)
class Stacks:
    """Bars cut into parts."""

    title: str
    parts: tuple[str, ...]
    stacks: tuple[tuple[str, tuple[float, ...]], ...]


Figure = Lines | Bars | Stacks


@dataclass(frozen=True)
class _Axis:
    """Maps values to coordinates; draws no value at its very edge but the extremes."""

    low: float
    high: float
    log: bool
    start: float
    end: float

    def __call__(self, value: float) -> float:
        low, high, at = (self._scale(one) for one in (self.low, self.high, value))
        share = (at - low) / (high - low) if high > low else 0.5
        return self.start + share * (self.end - self.start)

    def _scale(self, value: float) -> float:
        return math.log(value) if self.log else value


def render_lines(chart: Lines) -> str:
    """Draw a chart as an SVG element; every text in it is escaped."""
    xs = [x for series in chart.series for x in series.x]
    ys = [y for series in chart.series for y in (*series.y, *series.low, *series.high)]
    # A loss of zero has no logarithm; nothing below a millionth is told apart.
    floor = 1e-6 if chart.log_y else 0.0
    ys = [max(floor, y) for y in ys]
    bottom = min(ys) if chart.log_y else 0.0
    x = _Axis(min(xs), max(xs), chart.log_x, _LEFT + 8, WIDTH - _RIGHT - 8)
    y = _Axis(bottom, max(ys), chart.log_y, HEIGHT - _BOTTOM, _TOP)
    measured = sorted(set(xs))
    x_ticks = measured if chart.log_x and len(measured) <= 8 else _ticks(x)
    parts = []
    for tick in _ticks(y):
        parts.append(_element("line", "grid", x1=_LEFT, x2=WIDTH - _RIGHT, y1=y(tick), y2=y(tick)))
        parts.append(_text(_LEFT - 6, y(tick) + 4.5, _number(tick), "end"))
    parts += [_text(x(tick), HEIGHT - _BOTTOM + 18, _number(tick)) for tick in x_ticks]
    parts.append(_text((_LEFT + WIDTH - _RIGHT) / 2, HEIGHT - 6, chart.x_label))
    for number, series in enumerate(chart.series):
        parts += _draw(series, number, x, y, floor)
    head = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(chart.title)}">'
    return f"{head}{''.join(parts)}</svg>"


def _draw(series: Series, number: int, x: _Axis, y: _Axis, floor: float) -> list[str]:
    """Draw a line, its spread as bars, and points where they are few."""
    colour = f"s{number % COLOURS}"
    at = [(x(one), y(max(floor, two))) for one, two in zip(series.x, series.y, strict=True)]
    points = " ".join(f"{left:.1f},{top:.1f}" for left, top in at)
    # Later lines are dashed, so that one that lies on another leaves it to be seen.
    dash = f"{6 + 3 * (number % 3)} {3 + 2 * (number % 4)}" if number else "none"
    drawn = [_element("polyline", f"line {colour}", points=points, stroke_dasharray=dash)]
    drawn += [
        _element("line", f"line {colour}", x1=left, x2=left, y1=y(low), y2=y(high))
        for (left, _), low, high in zip(at, series.low, series.high, strict=False)
    ]
    if len(at) <= 12:
        drawn += [_element("circle", f"dot {colour}", cx=left, cy=top, r=4) for left, top in at]
    return drawn


def _element(name: str, css: str, **attributes: float | str) -> str:
    words = [
        f'{key.replace("_", "-")}="{value if isinstance(value, str) else f"{value:.1f}"}"'
        for key, value in attributes.items()
    ]
    return f'<{name} class="{css}" {" ".join(words)}/>'


def _text(x: float, y: float, text: str, anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _ticks(axis: _Axis) -> list[float]:
    """Return round values within an axis, two to seven; on a long logarithmic one by decades."""
    if axis.log and axis.low > 0:
        powers = range(math.floor(math.log10(axis.low)) - 1, math.ceil(math.log10(axis.high)) + 1)
        for leading in ((1.0, 2.0, 5.0), (1.0, 3.0), (1.0,)):
            found = [by * 10.0**power for power in powers for by in leading]
            found = [one for one in found if axis.low * 0.999 <= one <= axis.high * 1.001]
            if 2 <= len(found) <= 7:
                return found
    span = axis.high - axis.low
    if span <= 0:
        return [axis.low]
    raw = span / 5
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(by * power for by in (1, 2, 5, 10) if by * power >= raw)
    first = math.ceil(axis.low / step)
    return [number * step for number in range(first, math.floor(axis.high / step + 1e-9) + 1)]


def _number(value: float) -> str:
    if value >= 1e6:
        return f"{value / 1e6:g} M"
    if value >= 1e4:
        return f"{value / 1e3:g} k"
    return f"{value:.4g}"


def legend(names: Sequence[str]) -> str:
    """Return the names of lines or parts as an HTML list, each in its colour."""
    items = "".join(
        f'<li><span class="swatch s{number % COLOURS}"></span>{escape(name)}</li>'
        for number, name in enumerate(names)
    )
    return f'<ul class="legend">{items}</ul>'
