"""What the measurements come to, in sentences; no torch."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from vggnet.compare.judge import Entry, choose_baseline, differences, other_work, speedup
from vggnet.compare.result import Setting, SweepPoint


@dataclass(frozen=True)
class Curve:
    """Images a second of one setting over the points of a sweep."""

    label: str
    setting: Setting
    """Of its first point."""
    points: tuple[SweepPoint, ...]
    """In rising x."""

    def at(self, x: float) -> float | None:
        """Median images a second at x, None where it was not measured."""
        return next((self.rates(point)[0] for point in self.points if point.x == x), None)

    def rates(self, point: SweepPoint) -> tuple[float, float, float]:
        """Images a second of a point: median, least and most."""
        rates = [point.images / seconds for seconds in point.seconds]
        return statistics.median(rates), min(rates), max(rates)


def conclude(entries: Sequence[Entry]) -> list[str]:
    """Answer in one sentence which device is how much faster, and then say what else holds."""
    baseline = choose_baseline(entries)
    strict = _fastest(entry for entry in entries if entry.row.strict)
    others = [one for one in strict if one is not baseline]
    elsewhere = [one for one in others if one.row.setting.kind != "cpu"]
    if baseline.row.setting.kind != "cpu" or not baseline.row.strict:
        first = "No CPU was measured in strict fp32, so there is none to compare with."
        return [first, *(state_ratio(baseline, one) for one in others)]
    if elsewhere:
        fastest = max(elsewhere, key=lambda one: one.images_per_second[0])
        return [state_ratio(baseline, fastest), *_at_their_best(entries)]
    if others:
        slowest = min(others, key=lambda one: one.images_per_second[0])
        return [state_ratio(slowest, baseline)]
    return [_compare_with_itself(entries, baseline)]


def state_ratio(baseline: Entry, entry: Entry) -> str:
    """Say how many times as fast a row is, or why that cannot be said."""
    found = differences(baseline, entry)
    forbidding = [one.what for one in found if one.forbids]
    names = f"{entry.label} over {baseline.label}"
    if forbidding:
        return f"No speed-up is stated for {names}: they differ in {join_words(forbidding)}."
    ratio = speedup(baseline, entry)
    both = ", both in strict fp32" if entry.row.strict and baseline.row.strict else ""
    sentence = (
        f"{entry.label} trains this network {times(ratio.median)} times as fast as "
        f"{baseline.label} ({times(ratio.low)} to {times(ratio.high)}){both}."
    )
    if found:
        reservations = join_words([one.what for one in found])
        sentence += f" This ratio is not of the devices alone: they differ in {reservations}."
    return sentence


def share_saved(baseline: Entry, entry: Entry) -> str | None:
    """Say which parts of a step the saved time comes from; None where nothing is saved."""
    ours, theirs = entry.row.parts, baseline.row.parts
    if ours is None or theirs is None or entry is baseline:
        return None
    names = {"forward": "forward", "backward": "backward", "batch": "batch assembly"}
    names |= {"optimizer": "optimizer", "other": "book-keeping"}
    saved = {
        name: getattr(theirs, f"{part}_ms") - getattr(ours, f"{part}_ms")
        for part, name in names.items()
    }
    total = sum(saved.values())
    if total <= 0:
        return None
    shares = [f"{name} {100 * ms / total:.0f} %" for name, ms in saved.items()]
    return (
        f"Of the {total:.3g} ms that a step of {entry.label} takes less than one of "
        f"{baseline.label}: {join_words(shares)}."
    )


def curves_of(entries: Sequence[Entry], sweep: str) -> list[Curve]:
    """Return the points of a kind of sweep as curves, one for each way to use a device."""
    found: dict[str, list[SweepPoint]] = {}
    for entry in {id(one.result): one for one in entries}.values():
        for point in (one for one in entry.result.sweep if one.sweep == sweep):
            found.setdefault(_curve_label(entry.source, point), []).append(point)
    return [
        Curve(label, points[0].setting, tuple(sorted(points, key=lambda point: point.x)))
        for label, points in found.items()
    ]


def crossovers(curves: Sequence[Curve]) -> Iterator[str]:
    """Say from which batch size or width on each curve is ahead of the CPU's best.

    Where all curves are a CPU's, the first one, with the fewest threads, is what the
    others are held against.
    """
    on_cpu = [curve for curve in curves if curve.setting.kind == "cpu"]
    elsewhere = [curve for curve in curves if curve.setting.kind != "cpu"]
    rivals, held = (elsewhere, on_cpu) if elsewhere else (on_cpu[1:], on_cpu[:1])
    if not held:
        return
    against = "the CPU's best" if elsewhere else held[0].label
    for curve in rivals:
        what = "batch size" if curve.points[0].sweep == "batch" else "width"
        wins = []
        for point in curve.points:
            theirs = [rate for one in held if (rate := one.at(point.x))]
            if theirs:
                wins.append((point.x, (curve.at(point.x) or 0) > max(theirs)))
        yield f"{curve.label} {_describe_wins(wins, what)} {against}."


def times(ratio: float) -> str:
    """Write a ratio with three digits that mean something."""
    return f"{ratio:.0f}" if ratio >= 100 else f"{ratio:.3g}"


def _describe_wins(wins: Sequence[tuple[float, bool]], what: str) -> str:
    won = [x for x, win in wins if win]
    if not won:
        return f"at no measured {what} is ahead of"
    if len(won) == len(wins):
        return f"at every measured {what} is ahead of"
    lost_last = max((x for x, win in wins if not win), default=0.0)
    first = min((x for x in won if x > lost_last), default=None)
    if first is None:
        return f"at {what} {', '.join(f'{x:g}' for x in won)} alone is ahead of"
    return f"from {what} {first:g} on is ahead of"


def _at_their_best(entries: Sequence[Entry]) -> list[str]:
    """Compare the devices at their best, in images a second and nothing more."""
    best = [entry for entry in entries if entry.row.best]
    on_cpu = [entry for entry in best if entry.row.setting.kind == "cpu"]
    elsewhere = [entry for entry in best if entry.row.setting.kind != "cpu"]
    if not on_cpu or not elsewhere:
        return []
    ours = max(elsewhere, key=lambda one: one.images_per_second[0])
    theirs = max(on_cpu, key=lambda one: one.images_per_second[0])
    if unlike := other_work(theirs, ours):
        return [f"No speed-up is stated of each at its best: they differ in {join_words(unlike)}."]
    ratio = speedup(theirs, ours)
    sentence = (
        f"Each at its best, in images a second: {ours.label} {times(ratio.median)} times "
        f"({times(ratio.low)} to {times(ratio.high)}) as many as {theirs.label}."
    )
    if found := differences(theirs, ours):
        unlike = [one.what for one in found]
        sentence += f" These are not the same computation: they differ in {join_words(unlike)}."
    return [sentence]


def _compare_with_itself(entries: Sequence[Entry], baseline: Entry) -> str:
    parts = []
    threads = [one for one in entries if one.row.strict and one.row.setting.kind == "cpu"]
    fewest = min(threads, key=lambda one: one.row.setting.threads or 0)
    if fewest is not baseline:
        ratio = speedup(fewest, baseline)
        one = fewest.row.setting.threads
        parts.append(
            f"{baseline.row.setting.threads} threads train {times(ratio.median)} times "
            f"({times(ratio.low)} to {times(ratio.high)}) as fast as {one}"
        )
    best = [one for one in entries if one.row.best and one is not baseline]
    if best:
        ratio = speedup(baseline, best[0])
        parts.append(
            f"its best setting ({_beside(best[0].row.setting, baseline.row.setting)}) takes "
            f"{times(ratio.median)} times ({times(ratio.low)} to {times(ratio.high)}) as many "
            f"images a second as strict fp32 by PyTorch alone"
        )
    if not parts:
        return "Only a CPU was measured, and in one setting: there is nothing to compare."
    return f"Only a CPU was measured, so it is compared with itself: {', and '.join(parts)}."


def _beside(setting: Setting, other: Setting) -> str:
    """Name a setting by what it has not in common with another."""
    common = other.label.split(" · ")
    return ", ".join(part for part in setting.label.split(" · ") if part not in common)


def _fastest(entries: Iterable[Entry]) -> list[Entry]:
    """Return the fastest row of each device of each result."""
    found: dict[tuple[str, str], Entry] = {}
    for entry in entries:
        key = (entry.source, entry.row.setting.device)
        if key not in found or entry.images_per_second > found[key].images_per_second:
            found[key] = entry
    return list(found.values())


def _curve_label(source: str, point: SweepPoint) -> str:
    parts = point.setting.label.split(" · ")
    if point.sweep == "batch":
        parts = [part for part in parts if not part.startswith("batch ")]
    return (f"{source}: " if source else "") + " · ".join(parts)


def join_words(words: Sequence[str]) -> str:
    """Join with commas and an "and"."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else list(words))
