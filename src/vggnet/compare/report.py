"""Results to one report: sentences, tables and figures, ready for any renderer; no torch."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from vggnet.compare.conclude import conclude
from vggnet.compare.details import (
    show_machine,
    show_parts,
    show_same_work,
    show_starts,
    show_sweeps,
    show_threads,
    show_trials,
)
from vggnet.compare.judge import choose_baseline, entries_of
from vggnet.compare.result import Result
from vggnet.compare.rows import show_rows
from vggnet.compare.section import Report


def build_report(
    results: Sequence[tuple[str, Result]], prices: Mapping[str, float], file: Path
) -> Report:
    """Say everything that some results show.

    Args:
        results: Each with what to call it where there are several.
        prices: Of an hour, by device ("cuda:1") or kind ("cuda").
        file: Where the first result is kept, for the command that sets another beside it.
    """
    entries = entries_of(results)
    baseline = choose_baseline(entries)
    answer, *more = conclude(entries)
    for source, result in results:
        if not result.complete:
            name = f" of {source}" if len(results) > 1 else ""
            more.append(f"The measurement{name} was cut short; this is what was done by then.")
    sections = [
        show_parts(entries, baseline),
        show_same_work(entries, baseline),
        show_threads(entries),
        *show_sweeps(entries, baseline),
        show_starts(entries),
        show_trials(entries),
        *(show_machine(source, result) for source, result in results),
    ]
    return Report(
        answer=answer,
        more=tuple(more),
        main=show_rows(entries, baseline, prices),
        sections=tuple(section for section in sections if section),
        commands=_next_commands(results, file),
    )


def _next_commands(
    results: Sequence[tuple[str, Result]], file: Path
) -> tuple[tuple[str, str], ...]:
    """Say how to bring a GPU in, where one machine without any was measured."""
    first = results[0][1]
    if len(results) > 1 or not first.complete or first.machine.accelerators:
        return ()
    options = first.options
    return (
        (
            "on the machine with the GPU",
            f"vggnet compare --devices cpu,cuda {options} --output gpu".replace("  ", " "),
        ),
        (
            "then, with both files here",
            f"vggnet compare {shlex.quote(str(file))} gpu/compare.json --output both",
        ),
    )
