"""Build one report from results; no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from vggnet.compare.accuracy import conclude_accuracy, contenders_of, show_accuracy
from vggnet.compare.comparability import choose_baseline, entries_of
from vggnet.compare.conclusions import conclude
from vggnet.compare.result import Result
from vggnet.compare.sections import (
    show_machine,
    show_parts,
    show_rows,
    show_same_work,
    show_starts,
    show_sweeps,
    show_threads,
    show_trials,
)
from vggnet.errors import quote
from vggnet.report.document import Report, Section


def build_report(
    results: Sequence[tuple[str, Result]], prices: Mapping[str, float], file: Path
) -> Report:
    """Build the report of one or more results.

    Args:
        results: Each with its name, which is used if there are several.
        prices: Price per hour by device ("cuda:1") or kind ("cuda").
        file: Path of the first result, for the command that adds another.
    """
    entries = entries_of(results)
    baseline = choose_baseline(entries)
    conclusions = conclude(entries)
    main = show_rows(entries, baseline, prices)
    throughput: list[Section | None] = []
    if contenders := contenders_of(results):
        # Time to accuracy is what a buyer needs; the fastest setting may learn nothing.
        conclusions = [*conclude_accuracy(contenders), *conclusions]
        throughput, main = [main], show_accuracy(contenders, prices)
    answer, *remarks = conclusions
    for source, result in results:
        if not result.complete:
            name = f" of {source}" if len(results) > 1 else ""
            remarks.append(f"The measurement{name} was cut short; this is what was done by then.")
    sections = [
        *throughput,
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
        remarks=tuple(remarks),
        main=main,
        sections=tuple(section for section in sections if section),
        commands=_next_commands(results, file),
    )


def _next_commands(
    results: Sequence[tuple[str, Result]], file: Path
) -> tuple[tuple[str, str], ...]:
    """Return the commands that add a GPU to a result of a machine without one."""
    first = results[0][1]
    if len(results) > 1 or not first.complete or first.machine.accelerators:
        return ()
    options = first.options
    return (
        (
            "To compare with a GPU, run on its machine",
            f"vggnet compare --devices cpu,cuda {options} --output gpu".replace("  ", " "),
        ),
        (
            "Then, with both files here",
            f"vggnet compare {quote([str(file)])} gpu/compare.json --output both",
        ),
    )
