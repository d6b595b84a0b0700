"""Results to one report: sentences, tables and figures, ready for any renderer; no torch."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from vggnet.compare.conclude import conclude, crossovers, curves_of, share_saved, times
from vggnet.compare.figures import Bar, Bars, Figure, Lines, Series, Stacks
from vggnet.compare.judge import (
    Entry,
    accuracy_difference,
    choose_baseline,
    differences,
    entries_of,
    speedup,
)
from vggnet.compare.result import Result

PARTS = ("batch", "forward", "backward", "optimizer", "other")


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


def build_report(results: Sequence[tuple[str, Result]], prices: Mapping[str, float]) -> Report:
    """Say everything that some results show.

    Args:
        results: Each with what to call it where there are several.
        prices: Of an hour, by device ("cuda:1") or kind ("cuda").
    """
    entries = entries_of(results)
    baseline = choose_baseline(entries)
    answer, *more = conclude(entries)
    for source, result in results:
        if not result.complete:
            name = f" of {source}" if len(results) > 1 else ""
            more.append(f"The measurement{name} was cut short; this is what was done by then.")
    sections = [
        _explain(entries, baseline),
        _show_same_work(entries, baseline),
        _show_threads(entries),
        *_show_sweeps(entries),
        _show_starts(entries),
        _show_trials(entries),
        *(_describe(source, result) for source, result in results),
    ]
    return Report(
        answer=answer,
        more=tuple(more),
        main=_show_rows(entries, baseline, prices),
        sections=tuple(section for section in sections if section),
        commands=_next_commands(results),
    )


def _show_rows(entries: Sequence[Entry], baseline: Entry, prices: Mapping[str, float]) -> Section:
    notes: list[str] = []
    columns = ["setting", "s an epoch", "images/s", "TFLOP/s (of peak)", "speed-up", "accuracy %"]
    with_energy = any(entry.row.joules for entry in entries)
    columns += ["kJ an epoch"] if with_energy else []
    columns += ["cost of a model"] if prices else []
    rows = []
    for entry in sorted(entries, key=lambda one: one.images_per_second[0]):
        cells = [
            _name(entry),
            spread(entry.epoch_seconds),
            f"{entry.images_per_second[0]:,.0f}",
            _share_of_peak(entry),
            _state_speedup(entry, baseline, notes),
            f"{100 * entry.row.accuracy:.2f}",
        ]
        cells += [_energy(entry)] if with_energy else []
        cells += [_cost(entry, prices)] if prices else []
        rows.append(tuple(cells))
    text = [_say_how(entries), *(f"[{n}] {note}" for n, note in enumerate(notes, 1))]
    bars = Bars(
        "images a second (line: least to most)",
        tuple(
            Bar(entry.label, *entry.images_per_second, f"{entry.images_per_second[0]:,.0f}")
            for entry in sorted(entries, key=lambda one: -one.images_per_second[0])
        ),
    )
    return Section("What was measured", tuple(text), Table(tuple(columns), tuple(rows)), bars)


def spread(values: tuple[float, float, float]) -> str:
    """Write median (least to most) with as many digits as the median deserves."""
    median = values[0]
    digits = 0 if median >= 100 else 1 if median >= 10 else 2 if median >= 1 else 3
    middle, least, most = (f"{value:,.{digits}f}" for value in values)
    return f"{middle} ({least} to {most})"


def _figures(value: float) -> str:
    """Write three digits that mean something, without an exponent."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


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
    others = [one for one in found if one.forbids and not _by_batch(one.what)]
    withheld = others or (any(one.forbids for one in found) and not entry.row.best)
    note = "; ".join(one.what for one in found)
    note = f"no ratio, for this is other work: {note}" if withheld else f"differs in {note}"
    if note not in notes:
        notes.append(note)
    mark = f"[{notes.index(note) + 1}]"
    return f"— {mark}" if withheld else f"{text} {mark}"


def _by_batch(what: str) -> bool:
    return what.startswith(("batch size", "steps"))


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


def _say_how(entries: Sequence[Entry]) -> str:
    first = entries[0].result
    repeats = sorted({len(entry.row.seconds) for entry in entries})
    steps = sorted({entry.row.steps for entry in entries if entry.row.strict})
    return (
        f"Medians (least to most) of {_range(repeats)} repeats, in turns, of {_range(steps)} steps "
        f"of {first.config.model.name} on {first.config.data.dataset}, recipe "
        f"{first.config.recipe}; an epoch of {first.images_per_epoch:,} images is computed from "
        "that rate. Speed-up: images a second over those of the fastest strict CPU row. "
        f"TFLOP/s count the {first.flops_per_image / 1e6:,.1f} MFLOP that direct convolution takes "
        f"for an image (torch's counter: {first.counted_flops_per_image / 1e6:,.1f}); Winograd's "
        "algorithm needs fewer, so it can exceed the peak, which is that of a matrix product on "
        "the same device. strict: PyTorch's own operations in full fp32, TF32 off. best: the "
        "fastest setting found. Accuracy is the test set's after these few steps, not the recipe's."
    )


def _range(numbers: Sequence[int]) -> str:
    if not numbers:
        return "some"
    return f"{numbers[0]}" if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"


def _explain(entries: Sequence[Entry], baseline: Entry) -> Section | None:
    """Split the step of every row that has parts."""
    split = [entry for entry in entries if entry.row.parts and (entry.row.strict or entry.row.best)]
    if not split:
        return None
    rows, stacks = [], []
    for entry in split:
        parts = entry.row.parts
        assert parts is not None
        values = [getattr(parts, f"{part}_ms") for part in PARTS]
        per = 1 / entry.row.setting.global_batch_size * 1000
        cells = [_figures(value) for value in (*values, sum(values), parts.step_ms)]
        rows.append((entry.label, *cells))
        stacks.append((entry.label, tuple(value * per for value in values)))
    columns = ("setting", "batch assembly", "forward", "backward", "optimizer", "other")
    saved = [
        said
        for entry in split
        if entry.row.setting.global_batch_size == baseline.row.setting.global_batch_size
        and (said := share_saved(baseline, entry))
    ]
    text = (
        "Milliseconds a step, medians; the device is waited for after each part of every other "
        "step. The whole step is that of the steps in between, where what a device does at the "
        "same time is not torn apart; so the sum exceeds it by what overlap saves.",
        *saved,
    )
    return Section(
        "Where the time goes",
        text,
        Table((*columns, "sum", "whole step"), tuple(rows)),
        Stacks("µs an image", columns[1:], tuple(stacks)),
    )


def _show_same_work(entries: Sequence[Entry], baseline: Entry) -> Section:
    rows = []
    for entry in entries:
        if entry is baseline:
            continue
        found = accuracy_difference(baseline, entry)
        text = "other test pictures"
        if found:
            middle, low, high = (100 * value for value in found)
            text = f"{middle:+.2f} ({low:+.2f} to {high:+.2f})"
        losses = entry.row.step_losses
        rows.append((entry.label, f"{losses[0]:.4f}", f"{losses[-1]:.4f}", text))
    own = baseline.row.step_losses
    rows.insert(0, (baseline.label, f"{own[0]:.4f}", f"{own[-1]:.4f}", "0"))
    series = tuple(
        Series(
            entry.label,
            tuple(
                (number + 1) * float(entry.row.setting.global_batch_size)
                for number in range(entry.row.steps)
            ),
            entry.row.step_losses,
        )
        for entry in entries
        if entry.row.strict or entry.row.best
    )
    return Section(
        "The same work",
        (
            "Every row starts from the same weights and takes the same images in the same order; "
            "the loss curves lie over each other as far as rounding lets them. Accuracy is "
            "compared on the same test pictures, with the 95 % interval of paired samples.",
        ),
        Table(
            (
                "setting",
                "first step's loss",
                "last step's loss",
                "accuracy, points over the baseline",
            ),
            tuple(rows),
        ),
        Lines("Training loss", "images", "nats", series, log_y=True),
    )


def _show_threads(entries: Sequence[Entry]) -> Section | None:
    found: dict[str, list[Entry]] = {}
    for entry in entries:
        if entry.row.setting.threads and entry.row.strict:
            found.setdefault(entry.source or "cpu", []).append(entry)
    series = tuple(
        _curve(name, [(float(one.row.setting.threads or 0), one.images_per_second) for one in some])
        for name, some in found.items()
        if len(some) > 1
    )
    if not series:
        return None
    figure = Lines("Strict fp32 on the CPU", "threads", "images/s", series, log_x=True)
    return Section("Threads", figure=figure)


def _show_sweeps(entries: Sequence[Entry]) -> list[Section]:
    sections = []
    for kind, title in (("batch", "batch size"), ("width", "width, times the network's own")):
        curves = curves_of(entries, kind)
        if not curves:
            continue
        series = tuple(
            _curve(curve.label, [(point.x, curve.rates(point)) for point in curve.points])
            for curve in curves
        )
        figure = Lines("Images a second", title, "images/s", series, log_x=True, log_y=True)
        xs = sorted({point.x for curve in curves for point in curve.points})
        rows = tuple(
            (
                curve.label,
                *(f"{rate:,.0f}" if (rate := curve.at(x)) else "—" for x in xs),
            )
            for curve in curves
        )
        table = Table((title, *(f"{x:g}" for x in xs)), rows)
        sections.append(
            Section(f"Crossover: {title}", tuple(crossovers(curves)), table, figure),
        )
    return sections


def _curve(name: str, points: Sequence[tuple[float, tuple[float, float, float]]]) -> Series:
    points = sorted(points)
    return Series(
        name,
        tuple(x for x, _ in points),
        tuple(rates[0] for _, rates in points),
        tuple(rates[1] for _, rates in points),
        tuple(rates[2] for _, rates in points),
    )


def _show_starts(entries: Sequence[Entry]) -> Section | None:
    rows = []
    for entry in entries:
        warm, cold = entry.row.warmup_seconds, entry.row.cold
        if not warm:
            continue
        cells = ["—", "—", "—"]
        if cold:
            trained = entry.row.steps / cold.training_seconds
            steady = entry.row.steps / statistics.median(entry.row.seconds)
            cells = [
                f"{cold.seconds:.1f}",
                f"{cold.training_seconds:.2f}",
                f"{100 * (trained / steady - 1):+.1f} %",
            ]
        rows.append((entry.label, *(_figures(1000 * one) for one in (warm[0], warm[-1])), *cells))
    if not rows:
        return None
    return Section(
        "Warm-up and cold start",
        (
            "Steps before the first repeat, each waited for; and vggnet train in a process of its "
            "own, from its start to the model file on the disk, with the test set's evaluation "
            "and the pictures. The last column says how the rate of its steps, by its own clock, "
            "compares with the steady rate above.",
        ),
        Table(
            (
                "setting",
                "first step, ms",
                f"step {max(len(entry.row.warmup_seconds) for entry in entries)}, ms",
                "cold, s",
                "steps in it, s",
                "their rate",
            ),
            tuple(rows),
        ),
    )


def _show_trials(entries: Sequence[Entry]) -> Section | None:
    rows = [
        (
            (f"{entry.source}: " if entry.source else "") + trial.setting.label,
            f"{trial.images / statistics.median(trial.seconds):,.0f}",
        )
        for entry in {id(one.result): one for one in entries}.values()
        for trial in entry.result.trials
    ]
    if not rows:
        return None
    text = ("One short run each, to choose what is measured in full as a device's best.",)
    return Section("What was tried", text, Table(("setting", "images/s"), tuple(rows)))


def _describe(source: str, result: Result) -> Section:
    machine = result.machine
    rows = [
        ("host", machine.host),
        ("measured", result.created),
        ("CPU", f"{machine.cpu}, {machine.cpu_isa}"),
        ("cores", f"{machine.usable_cores} usable of {machine.cpus} logical"),
        ("memory", f"{machine.memory_gib:g} GiB" if machine.memory_gib else "not known"),
        ("torch", machine.torch + (f", CUDA {machine.cuda}" if machine.cuda else "")),
        ("TF32", machine.tf32),
        ("Python, vggnet", f"{machine.python}, {machine.vggnet}"),
        ("system", machine.system),
        ("CPU energy", result.energy_source or "not readable (RAPL)"),
        ("dataset", f"{result.config.data.dataset}, SHA-256 {result.dataset_sha256[:16]}…"),
        ("command", f"vggnet compare {result.options}"),
    ]
    for one in machine.accelerators:
        facts = {
            "driver": one.driver,
            "memory": one.memory_gib and f"{one.memory_gib:g} GiB",
            "power limit": one.power_limit_watts and f"{one.power_limit_watts:g} W",
            "SM clock": one.clock_mhz and f"{one.clock_mhz:g} MHz",
            "at most": one.highest_clock_mhz and f"{one.highest_clock_mhz:g} MHz",
        }
        known = [f"{name} {value}" for name, value in facts.items() if value]
        rows.append((one.device, ", ".join([one.name, *known])))
    return Section(
        f"The machine{f' of {source}' if source else ''}",
        table=Table(("", ""), tuple(rows)),
        fold=machine.collect_env,
    )


def _next_commands(results: Sequence[tuple[str, Result]]) -> tuple[tuple[str, str], ...]:
    """Say how to bring a GPU in, where one machine without any was measured."""
    if len(results) > 1 or any(row.setting.kind != "cpu" for row in results[0][1].rows):
        return ()
    options = results[0][1].options
    return (
        (
            "on the machine with the GPU",
            f"vggnet compare --devices cpu,cuda {options} --output gpu".replace("  ", " "),
        ),
        ("then, with both files here", "vggnet compare compare.json gpu/compare.json"),
    )
