"""The table of a report: a line for every setting that was measured."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence

from vggnet.compare.conclude import times
from vggnet.compare.figures import Bar, Bars
from vggnet.compare.judge import Entry, differences, other_work, speedup
from vggnet.compare.section import Section, Table


def show_rows(entries: Sequence[Entry], baseline: Entry, prices: Mapping[str, float]) -> Section:
    """Return the table of all settings, slowest first, with notes on what is not comparable."""
    notes: list[str] = []
    columns = ["setting", "s an epoch", "images/s", "TFLOP/s (of peak)", "speed-up", "accuracy %"]
    with_energy = any(entry.row.joules for entry in entries)
    columns += ["kJ an epoch"] if with_energy else []
    columns += ["cost of a model"] if prices else []
    rows = []
    for entry in sorted(entries, key=lambda one: one.images_per_second[0]):
        cells = [
            _name(entry),
            _spread(entry.epoch_seconds),
            f"{entry.images_per_second[0]:,.0f}",
            _share_of_peak(entry),
            _state_speedup(entry, baseline, notes),
            f"{100 * entry.row.accuracy:.2f}",
        ]
        cells += [_energy(entry)] if with_energy else []
        cells += [_cost(entry, prices)] if prices else []
        rows.append(tuple(cells))
    text = [_say_how(entries, baseline), *(f"[{n}] {note}" for n, note in enumerate(notes, 1))]
    bars = Bars(
        "images a second (line: least to most)",
        tuple(
            Bar(entry.label, *entry.images_per_second, f"{entry.images_per_second[0]:,.0f}")
            for entry in sorted(entries, key=lambda one: -one.images_per_second[0])
        ),
    )
    return Section("What was measured", tuple(text), Table(tuple(columns), tuple(rows)), bars)


def _spread(values: tuple[float, float, float]) -> str:
    """Write median (least to most) with as many digits as the median deserves."""
    median = values[0]
    digits = 0 if median >= 100 else 1 if median >= 10 else 2 if median >= 1 else 3
    middle, least, most = (f"{value:,.{digits}f}" for value in values)
    return f"{middle} ({least} to {most})"


def _name(entry: Entry) -> str:
    marks = "strict, best" if entry.row.strict and entry.row.best else "strict"
    if not entry.row.strict:
        marks = "best"
    return f"{entry.label} [{marks}]"


def _state_speedup(entry: Entry, baseline: Entry, notes: list[str]) -> str:
    """Return the ratio to the baseline, with the number of the note that qualifies it."""
    if entry is baseline:
        return "1"
    found = differences(baseline, entry)
    ratio = speedup(baseline, entry)
    text = f"{times(ratio.median)} ({times(ratio.low)} to {times(ratio.high)})"
    if not found:
        return text
    # A batch of its own is what "best" means; other work is never given a ratio.
    forbidden = any(one.forbids for one in found)
    withheld = other_work(baseline, entry) or (forbidden and not entry.row.best)
    note = "; ".join(one.what for one in found)
    note = f"no ratio, for this is other work: {note}" if withheld else f"differs in {note}"
    if note not in notes:
        notes.append(note)
    mark = f"[{notes.index(note) + 1}]"
    return f"— {mark}" if withheld else f"{text} {mark}"


def _share_of_peak(entry: Entry) -> str:
    peak = entry.row.peak_flops_per_second
    share = f" ({100 * entry.flops_per_second / peak:.0f} %)" if peak else ""
    return f"{entry.flops_per_second / 1e12:.3g}{share}"


def _energy(entry: Entry) -> str:
    if not entry.row.joules:
        return "—"
    joules = statistics.median(entry.row.joules) / entry.row.images * entry.result.images_per_epoch
    return f"{joules / 1000:.3g}"


def _cost(entry: Entry, prices: Mapping[str, float]) -> str:
    setting = entry.row.setting
    price = prices.get(setting.device, prices.get(setting.kind))
    if price is None:
        return "—"
    seconds = entry.epoch_seconds[0] * entry.result.recipe_epochs
    if cold := entry.row.cold:
        seconds += cold.seconds - cold.training_seconds
    return f"{price * seconds / 3600:.3g}"


def _say_how(entries: Sequence[Entry], baseline: Entry) -> str:
    results = [entry.result for entry in entries]
    configs = [result.config for result in results]
    repeats = sorted({len(entry.row.seconds) for entry in entries})
    steps = sorted({entry.row.steps for entry in entries if entry.row.strict})
    return (
        f"Medians (least to most) of {_range(repeats)} repeats, in turns, of {_range(steps)} steps "
        f"of {_each(one.model.name for one in configs)} on "
        f"{_each(one.data.dataset for one in configs)}, recipe "
        f"{_each(one.recipe for one in configs)}; an epoch of "
        f"{_each(f'{one.images_per_epoch:,}' for one in results)} images is computed from that "
        f"rate. Speed-up: images a second over those of {baseline.label}. TFLOP/s count the "
        f"{_each(f'{one.flops_per_image / 1e6:,.1f}' for one in results)} MFLOP that direct "
        "convolution takes for an image (torch's counter: "
        f"{_each(f'{one.counted_flops_per_image / 1e6:,.1f}' for one in results)}); Winograd's "
        "algorithm needs fewer, so it can exceed the peak, which is that of a matrix product on "
        "the same device. strict: PyTorch's own operations in full fp32, TF32 off. best: the "
        "fastest setting found. Accuracy is the test set's after these few steps, not the recipe's."
    )


def _each(words: Iterable[str]) -> str:
    """Join what differs; results side by side need not be of the same training."""
    return " and ".join(dict.fromkeys(words))


def _range(numbers: Sequence[int]) -> str:
    if not numbers:
        return "some"
    return f"{numbers[0]}" if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"
