"""What the measurements show, in sentences; no torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from vggnet.compare.comparability import (
    Entry,
    choose_baseline,
    distinct_results,
    other_batch,
    other_means,
    other_work,
    prefixed,
    speedup,
)
from vggnet.compare.result import PARTS, Setting, SweepPoint
from vggnet.report.wording import join_words, three_digits


@dataclass(frozen=True)
class Curve:
    """Images per second of one setting over the points of a sweep."""

    label: str
    setting: Setting
    """Setting of the first point."""
    points: tuple[SweepPoint, ...]
    """In ascending x."""

    def at(self, x: float) -> float | None:
        """Return the median images per second at x; None if it was not measured."""
        return next((one.images_per_second[0] for one in self.points if one.x == x), None)


def conclude(entries: Sequence[Entry]) -> list[str]:
    """Return the answer (which device is how much faster) and further results."""
    baseline = choose_baseline(entries)
    strict = _fastest(entry for entry in entries if entry.row.strict)
    others = [one for one in strict if one is not baseline]
    elsewhere = [one for one in others if one.row.setting.kind != "cpu"]
    if baseline.row.setting.kind != "cpu" or not baseline.row.strict:
        first = "No baseline: no CPU was measured in strict fp32."
        return [first, *(_state_ratio(baseline, one) for one in others)]
    if elsewhere:
        fastest = max(elsewhere, key=lambda one: one.rate)
        return [_state_ratio(baseline, fastest), *_compare_best(entries)]
    if others:
        slowest = min(others, key=lambda one: one.rate)
        return [_state_ratio(slowest, baseline)]
    return [_compare_cpu_settings(entries, baseline)]


def times(ratio: tuple[float, float, float]) -> str:
    """Write a speedup and its range: "2.52× (2.49 to 2.58)"."""
    middle, low, high = map(three_digits, ratio)
    return f"{middle}× ({low} to {high})"


def share_saved(baseline: Entry, entry: Entry) -> str | None:
    """Say which parts of a step the saved time comes from; None if no time is saved."""
    ours, theirs = entry.row.parts, baseline.row.parts
    if ours is None or theirs is None or entry is baseline:
        return None
    pairs = zip(PARTS.values(), theirs.milliseconds, ours.milliseconds, strict=True)
    saved = {name: before - after for name, before, after in pairs}
    total = sum(saved.values())
    if total <= 0:
        return None
    shares = [f"{name} {100 * ms / total:.0f} %" for name, ms in saved.items()]
    return (
        f"A step of {entry.label} takes {total:.3g} ms less than a step of {baseline.label}: "
        f"{join_words(shares)}."
    )


def curves_of(entries: Sequence[Entry], sweep: str) -> list[Curve]:
    """Return a sweep's points as curves, one per way of using a device."""
    found: dict[str, list[SweepPoint]] = {}
    for entry in distinct_results(entries):
        for point in (one for one in entry.result.sweep if one.sweep == sweep):
            found.setdefault(_curve_label(entry.source, point), []).append(point)
    return [
        Curve(label, points[0].setting, tuple(sorted(points, key=lambda point: point.x)))
        for label, points in found.items()
    ]


def crossovers(curves: Sequence[Curve]) -> Iterator[str]:
    """Say from which batch size or width each curve is faster than the best CPU curve.

    If all curves are a CPU's, the others are compared with the first, which has the fewest
    threads.
    """
    on_cpu = [curve for curve in curves if curve.setting.kind == "cpu"]
    elsewhere = [curve for curve in curves if curve.setting.kind != "cpu"]
    rivals, references = (elsewhere, on_cpu) if elsewhere else (on_cpu[1:], on_cpu[:1])
    if not references:
        return
    against = "the best CPU setting" if elsewhere else references[0].label
    for curve in rivals:
        what = "batch size" if curve.points[0].sweep == "batch" else "width"
        wins = []
        for point in curve.points:
            theirs = [rate for one in references if (rate := one.at(point.x))]
            if theirs:
                wins.append((point.x, (curve.at(point.x) or 0) > max(theirs)))
        yield f"{curve.label} is {_describe_wins(wins, what, f'faster than {against}')}."


def _describe_wins(wins: Sequence[tuple[float, bool]], what: str, faster: str) -> str:
    won = [x for x, win in wins if win]
    if not won:
        return f"not {faster} at any measured {what}"
    if len(won) == len(wins):
        return f"{faster} at every measured {what}"
    lost_last = max(x for x, win in wins if not win)
    first = min((x for x in won if x > lost_last), default=None)
    if first is None:
        return f"{faster} only at {what} {', '.join(f'{x:g}' for x in won)}"
    return f"{faster} from {what} {first:g} upwards"


def _state_ratio(baseline: Entry, entry: Entry) -> str:
    """State how many times as fast a row is, or why that cannot be stated."""
    if unlike := [*other_work(baseline, entry), *other_batch(baseline, entry)]:
        return (
            f"No speedup of {entry.label} over {baseline.label}: the work differs in "
            f"{join_words(unlike)}."
        )
    ratio = speedup(baseline, entry)
    both = ", both in strict fp32" if entry.row.strict and baseline.row.strict else ""
    sentence = f"{entry.label} trains {times(ratio)} as fast as {baseline.label}{both}."
    if means := other_means(baseline, entry):
        sentence += f" Not only the device differs: {join_words(means)}."
    return sentence


def _compare_best(entries: Sequence[Entry]) -> list[str]:
    """Compare the devices in their best settings, by images per second alone."""
    best = [entry for entry in entries if entry.row.best]
    on_cpu = [entry for entry in best if entry.row.setting.kind == "cpu"]
    elsewhere = [entry for entry in best if entry.row.setting.kind != "cpu"]
    if not on_cpu or not elsewhere:
        return []
    ours = max(elsewhere, key=lambda one: one.rate)
    theirs = max(on_cpu, key=lambda one: one.rate)
    if unlike := other_work(theirs, ours):
        return [f"No speedup between best settings: the work differs in {join_words(unlike)}."]
    sentence = (
        f"Best settings: {ours.label} processes {times(speedup(theirs, ours))} as many images/s "
        f"as {theirs.label}."
    )
    if unlike := [*other_batch(theirs, ours), *other_means(theirs, ours)]:
        sentence += f" The computations differ in {join_words(unlike)}."
    return [sentence]


def _compare_cpu_settings(entries: Sequence[Entry], baseline: Entry) -> str:
    parts = []
    strict = [one for one in entries if one.row.strict and one.row.setting.kind == "cpu"]
    fewest = min(strict, key=lambda one: one.row.setting.threads or 0)
    if fewest is not baseline:
        more, few = baseline.row.setting.threads, fewest.row.setting.threads
        parts.append(f"{more} threads train {times(speedup(fewest, baseline))} as fast as {few}")
    best = [one for one in entries if one.row.best and one is not baseline]
    if best:
        parts.append(
            f"the best setting ({_beside(best[0].row.setting, baseline.row.setting)}) processes "
            f"{times(speedup(baseline, best[0]))} as many images/s as strict fp32"
        )
    if not parts:
        return "Only the CPU was measured, in one setting: there is nothing to compare."
    return f"Only the CPU was measured: {', and '.join(parts)}."


def _beside(setting: Setting, other: Setting) -> str:
    """Return the parts of a setting's label that another setting does not have."""
    common = other.label.split(" · ")
    return ", ".join(part for part in setting.label.split(" · ") if part not in common)


def _fastest(entries: Iterable[Entry]) -> list[Entry]:
    """Return the fastest row of each device of each result."""
    found: dict[tuple[str, str], Entry] = {}
    for entry in entries:
        key = (entry.source, entry.row.setting.device)
        if key not in found or entry.rate > found[key].rate:
            found[key] = entry
    return list(found.values())


def _curve_label(source: str, point: SweepPoint) -> str:
    parts = point.setting.label.split(" · ")
    if point.sweep == "batch":
        parts = [part for part in parts if not part.startswith("batch ")]
    return prefixed(source, " · ".join(parts))
