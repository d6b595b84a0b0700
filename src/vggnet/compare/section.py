"""What a report is made of; every renderer takes it as it is."""

from __future__ import annotations

from dataclasses import dataclass, field

from vggnet.compare.figures import Figure


@dataclass(frozen=True)
class Table:
    """Cells as text; the first column names the row."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it."""

    title: str
    text: tuple[str, ...] = ()
    table: Table | None = None
    figure: Figure | None = None
    fold: str = ""
    """Long text to show on demand."""


@dataclass(frozen=True)
class Report:
    """Everything there is to say."""

    answer: str
    """One sentence."""
    more: tuple[str, ...]
    """What else follows, and what to beware of."""
    main: Section
    """The table that a terminal shows."""
    sections: tuple[Section, ...]
    commands: tuple[tuple[str, str], ...] = field(default=())
    """What to run next: what it does, and the command."""
