"""What the benchmark scripts share: interleaved timing, spread, the machine, reports."""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vggnet.engine.environment import describe_environment

BENCHMARKS = Path(__file__).resolve().parent


def build_parser(docstring: str | None) -> argparse.ArgumentParser:
    """Build a parser described by the first line of a script's docstring, with `--output`."""
    parser = argparse.ArgumentParser(description=(docstring or "").splitlines()[0])
    parser.add_argument("--output", type=Path, help="write OUTPUT.md and OUTPUT.json")
    return parser


def timed(run: Callable[[], object]) -> float:
    """Return the seconds that a call takes."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def interleave(measures: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Take one value of each measure per round (A B A B), so that noise affects all alike."""
    values: dict[str, list[float]] = {name: [] for name in measures}
    for _ in range(rounds):
        for name, measure in measures.items():
            values[name].append(measure())
    return values


def render_spread(values: Sequence[float], digits: int) -> str:
    """Render as "median (min to max)"."""
    middle, low, high = (
        f"{value:,.{digits}f}" for value in (statistics.median(values), min(values), max(values))
    )
    return f"{middle} ({low} to {high})"


def render_accuracy(accuracies: Sequence[float]) -> str:
    """Render fractions as "mean ± standard deviation % (n = 5)"."""
    percent = [100 * accuracy for accuracy in accuracies]
    if len(percent) == 1:
        return f"{percent[0]:.2f} % (n = 1)"
    return (
        f"{statistics.mean(percent):.3f} ± {statistics.stdev(percent):.3f} % (n = {len(percent)})"
    )


def render_machine(threads: int | None = None, environment: dict[str, Any] | None = None) -> str:
    """Render hardware, versions, date and the running command as a Markdown list.

    The environment is this process's unless the figures are from another one.
    """
    found = environment or describe_environment()
    cores = _count(found["usable_cores"], "core")
    return f"""\
- machine: {found["cpu"]}, {found["cpu_isa"]}, \
{f"{_count(threads, 'thread')} on {cores}" if threads else cores}, {found["memory_gib"]} GiB
- versions: vggnet {found["vggnet"]}, torch {found["torch"]}, Python {found["python"]}, \
{found["system"]}
- measured: {datetime.now(UTC):%Y-%m-%d} by `{command_line()}`
"""


def command_line() -> str:
    """Return the running command, with absolute paths reduced to their last part."""
    script = Path(sys.argv[0]).resolve()
    if script.is_relative_to(BENCHMARKS):
        script = script.relative_to(BENCHMARKS.parent)
    return shlex.join(["python", script.as_posix(), *map(_shorten, sys.argv[1:])])


def _shorten(argument: str) -> str:
    return f".../{Path(argument).name}" if Path(argument).is_absolute() else argument


def write_report(output: Path | None, text: str, figures: dict[str, Any]) -> None:
    """Print a report; with an output, write it to OUTPUT.md and the figures to OUTPUT.json."""
    print(text)
    if output:
        record = {"environment": describe_environment(), "command": command_line(), **figures}
        output.parent.mkdir(parents=True, exist_ok=True)
        output.with_suffix(".md").write_text(text, encoding="utf-8")
        output.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"
