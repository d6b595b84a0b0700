"""A report as data: sections, tables and figures. Each renderer takes it as it is; no torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True)
class Series:
    """A line in a chart; `low` and `high` are the ends of its error bars, if it has any."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()

    @classmethod
    def with_ranges(
        cls, name: str, points: Iterable[tuple[float, tuple[float, float, float]]]
    ) -> Self:
        """Build a series from points (x, (middle, low, high)), sorted by x."""
        ordered = sorted(points)
        columns = zip(*(ranges for _, ranges in ordered), strict=True)
        return cls(name, tuple(x for x, _ in ordered), *columns)


@dataclass(frozen=True)
class LineChart:
    """Lines over common axes."""

    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    log_x: bool = False
    log_y: bool = False


@dataclass(frozen=True)
class Bar:
    """A value with its range and its text."""

    label: str
    value: float
    low: float
    high: float
    text: str


@dataclass(frozen=True)
class BarChart:
    """Horizontal bars with error bars."""

    title: str
    bars: tuple[Bar, ...]


@dataclass(frozen=True)
class StackedBars:
    """Horizontal bars, each divided into the same parts."""

    title: str
    parts: tuple[str, ...]
    stacks: tuple[tuple[str, tuple[float, ...]], ...]


Figure = LineChart | BarChart | StackedBars


@dataclass(frozen=True)
class Table:
    """Cells as text; the first column names the row. Empty column titles: no header."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Section:
    """A heading with a figure, a table and notes."""

    title: str
    notes: tuple[str, ...] = ()
    table: Table | None = None
    figure: Figure | None = None
    fold: tuple[str, str] | None = None
    """A title and a long text that HTML shows on demand."""


@dataclass(frozen=True)
class Report:
    """A complete report."""

    answer: str
    """The main result in one sentence."""
    remarks: tuple[str, ...]
    """Further results and caveats."""
    main: Section
    """The section that a terminal prints."""
    sections: tuple[Section, ...]
    commands: tuple[tuple[str, str], ...] = ()
    """What to run next: a description and the command."""

    @property
    def all_sections(self) -> tuple[Section, ...]:
        """The main section, then the others."""
        return (self.main, *self.sections)
