"""The sections of a report: the main table, where time goes, whether the work was the same."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence

from vggnet.compare.comparability import (
    Entry,
    accuracy_difference,
    distinct_results,
    other_batch,
    other_means,
    other_work,
    prefixed,
    speedup,
)
from vggnet.compare.conclusions import crossovers, curves_of, share_saved, times
from vggnet.compare.result import PARTS, Result
from vggnet.report.document import (
    Bar,
    BarChart,
    LineChart,
    Section,
    Series,
    StackedBars,
    Table,
)
from vggnet.report.wording import join_words, three_digits, with_range

_NOTHING = "—"


def show_rows(entries: Sequence[Entry], baseline: Entry, prices: Mapping[str, float]) -> Section:
    """Return the main table, slowest row first, with notes on what is not comparable."""
    caveats: list[str] = []
    with_energy = any(entry.row.joules for entry in entries)
    columns = ["setting", "s/epoch", "images/s", "TFLOP/s (of peak)", "speedup", "accuracy %"]
    columns += ["kJ/epoch"] if with_energy else []
    columns += ["cost of a run"] if prices else []
    rows = []
    for entry in sorted(entries, key=lambda one: one.rate):
        cells = [
            _name(entry),
            with_range(*entry.epoch_seconds),
            f"{entry.rate:,.0f}",
            _utilization(entry),
            _state_speedup(entry, baseline, caveats),
            f"{100 * entry.row.accuracy:.2f}",
        ]
        cells += [_energy(entry)] if with_energy else []
        cells += [_cost(entry, prices)] if prices else []
        rows.append(tuple(cells))
    notes = [*_explain(entries, baseline), *(f"[{n}] {one}" for n, one in enumerate(caveats, 1))]
    bars = tuple(
        Bar(entry.label, *entry.row.images_per_second, f"{entry.rate:,.0f}")
        for entry in sorted(entries, key=lambda one: -one.rate)
    )
    chart = BarChart("images/s (line: minimum to maximum)", bars)
    return Section("Throughput", tuple(notes), Table(tuple(columns), tuple(rows)), chart)


def show_parts(entries: Sequence[Entry], baseline: Entry) -> Section | None:
    """Return the parts of each row's step."""
    rows, stacks = [], []
    for entry in entries:
        if parts := entry.row.parts:
            values = parts.milliseconds
            cells = map(three_digits, (*values, sum(values), parts.step_ms))
            rows.append((entry.label, *cells))
            per_image = 1000 / entry.row.setting.global_batch_size
            stacks.append((entry.label, tuple(value * per_image for value in values)))
    if not rows:
        return None
    saved = [
        said
        for entry in entries
        if entry.row.setting.global_batch_size == baseline.row.setting.global_batch_size
        and not other_work(baseline, entry)
        and (said := share_saved(baseline, entry))
    ]
    names = tuple(PARTS.values())
    notes = (
        "Median milliseconds per step. Every other step is synchronized after each part; a whole "
        "step only at its ends. The sum of the parts exceeds a whole step by what overlap saves.",
        *saved,
    )
    table = Table(("setting", *names, "sum", "whole step"), tuple(rows))
    chart = StackedBars("µs per image", names, tuple(stacks))
    return Section("Where the time goes", notes, table, chart)


def show_same_work(entries: Sequence[Entry], baseline: Entry) -> Section:
    """Return the loss curves, and the accuracies on the same test images."""
    rows = []
    for entry in [baseline, *(one for one in entries if one is not baseline)]:
        found = accuracy_difference(baseline, entry)
        text = "other test images"
        if found:
            middle, low, high = (100 * value for value in found)
            text = f"{middle:+.2f} ({low:+.2f} to {high:+.2f})"
        losses = entry.row.step_losses
        text = "0" if entry is baseline else text
        rows.append((entry.label, f"{losses[0]:.4f}", f"{losses[-1]:.4f}", text))
    series = []
    for entry in entries:
        size, steps = float(entry.row.setting.global_batch_size), range(1, entry.row.steps + 1)
        images = tuple(step * size for step in steps)
        series.append(Series(entry.label, images, entry.row.step_losses))
    others = [entry.label for entry in entries if other_work(baseline, entry)]
    work = (
        f"These rows do different work than {baseline.label}: {join_words(others)}."
        if others
        else "Every row starts from the same weights and sees the images in the same order. With "
        "the same batch size, the loss curves agree up to rounding."
    )
    columns = ("setting", "first loss", "last loss", "accuracy difference, points")
    return Section(
        "Different work" if others else "The same work",
        (
            f"{work} Accuracy differences are on the same test images, with the 95 % interval for "
            "paired samples.",
        ),
        Table(columns, tuple(rows)),
        LineChart("Training loss", "images", "nats", tuple(series), log_y=True),
    )


def show_threads(entries: Sequence[Entry]) -> Section | None:
    """Plot the strict CPU rows over the number of threads."""
    found: dict[str, list[Entry]] = {}
    for entry in entries:
        if entry.row.setting.threads and entry.row.strict:
            found.setdefault(entry.source or "cpu", []).append(entry)
    series = tuple(
        Series.with_ranges(
            name, ((float(one.row.setting.threads or 0), one.row.images_per_second) for one in some)
        )
        for name, some in found.items()
        if len(some) > 1
    )
    if not series:
        return None
    figure = LineChart("Strict fp32 on the CPU", "threads", "images/s", series, log_x=True)
    return Section("Threads", figure=figure)


def show_sweeps(entries: Sequence[Entry], baseline: Entry) -> list[Section]:
    """Plot rates over batch size or width, and say from where a device is faster."""
    alike = not any(other_work(baseline, entry) for entry in entries)
    sections = []
    for kind, title in (("batch", "batch size"), ("width", "width relative to the network")):
        curves = curves_of(entries, kind)
        if not curves:
            continue
        series = tuple(
            Series.with_ranges(
                curve.label, ((point.x, point.images_per_second) for point in curve.points)
            )
            for curve in curves
        )
        figure = LineChart("Throughput", title, "images/s", series, log_x=True, log_y=True)
        xs = sorted({point.x for curve in curves for point in curve.points})
        rows = tuple(
            (curve.label, *(f"{rate:,.0f}" if (rate := curve.at(x)) else _NOTHING for x in xs))
            for curve in curves
        )
        table = Table((title, *(f"{x:g}" for x in xs)), rows)
        notes = ("Cells are images/s.", *(crossovers(curves) if alike else ()))
        sections.append(Section(f"Crossover: {title}", notes, table, figure))
    return sections


def show_starts(entries: Sequence[Entry]) -> Section | None:
    """Compare warm-up and a whole `vggnet train` with the steady rate."""
    rows = []
    for entry in entries:
        warm, cold = entry.row.warmup_seconds, entry.row.cold
        if not warm:
            continue
        cells = [_NOTHING] * 3
        if cold:
            trained = entry.row.steps / cold.training_seconds
            steady = entry.row.steps / statistics.median(entry.row.seconds)
            cells = [
                f"{cold.seconds:.1f}",
                f"{cold.training_seconds:.2f}",
                f"{100 * (trained / steady - 1):+.1f} %",
            ]
        rows.append(
            (entry.label, *(three_digits(1000 * one) for one in (warm[0], warm[-1])), *cells)
        )
    if not rows:
        return None
    last = max(len(entry.row.warmup_seconds) for entry in entries)
    note = (
        "Warm-up steps run before the first repeat, each synchronized. A cold start is vggnet "
        "train in a fresh process, from its start to the model file on disk, with evaluation on "
        "the test set and plots. The last column compares the rate of its training steps, by the "
        "process's own clock, with the steady rate."
    )
    columns = ("setting", "first step, ms", f"step {last}, ms", "cold start, s", "its steps, s")
    return Section("Warm-up and cold start", (note,), Table((*columns, "their rate"), tuple(rows)))


def show_trials(entries: Sequence[Entry]) -> Section | None:
    """List the short runs that chose each device's best setting."""
    rows = [
        (prefixed(entry.source, trial.setting.label), f"{trial.images_per_second[0]:,.0f}")
        for entry in distinct_results(entries)
        for trial in entry.result.trials
    ]
    if not rows:
        return None
    note = (
        "One short run per setting, to choose each device's best setting for the full measurement."
    )
    return Section("Trials", (note,), Table(("setting", "images/s"), tuple(rows)))


def show_machine(source: str, result: Result) -> Section:
    """Describe the machine of a result and how it was measured."""
    machine = result.machine
    rows = [
        ("host", machine.host),
        ("measured", result.created),
        ("CPU", f"{machine.cpu}, {machine.cpu_isa}"),
        ("cores", f"{machine.usable_cores} usable of {machine.cpus} logical"),
        ("memory", f"{machine.memory_gib:g} GiB" if machine.memory_gib else "unknown"),
        ("torch", machine.torch + (f", CUDA {machine.cuda}" if machine.cuda else "")),
        ("TF32", machine.tf32),
        ("Python, vggnet", f"{machine.python}, {machine.vggnet}"),
        ("system", machine.system),
        ("CPU energy", result.energy_source or "not available (RAPL)"),
        ("dataset", f"{result.config.data.dataset}, SHA-256 {result.dataset_sha256[:16]}…"),
    ]
    rows += [("command", result.command)] if result.command else []
    rows.append(("same work elsewhere", f"vggnet compare {result.options}"))
    for one in machine.accelerators:
        facts = {
            "driver": one.driver,
            "memory": one.memory_gib and f"{one.memory_gib:g} GiB",
            "power limit": one.power_limit_watts and f"{one.power_limit_watts:g} W",
            "SM clock": one.clock_mhz and f"{one.clock_mhz:g} MHz",
            "highest SM clock": one.highest_clock_mhz and f"{one.highest_clock_mhz:g} MHz",
        }
        known = [f"{name} {value}" for name, value in facts.items() if value]
        rows.append((one.device, ", ".join([one.name, *known])))
    return Section(
        f"The machine{f' of {source}' if source else ''}",
        table=Table(("", ""), tuple(rows)),
        fold=("torch.utils.collect_env", machine.collect_env),
    )


def _name(entry: Entry) -> str:
    marks = [mark for mark in ("strict", "best") if getattr(entry.row, mark)]
    return f"{entry.label} [{', '.join(marks)}]" if marks else entry.label


def _state_speedup(entry: Entry, baseline: Entry, caveats: list[str]) -> str:
    """Return the speedup with a reference to the caveat that qualifies it."""
    if entry is baseline:
        return "1×"
    work, batch = other_work(baseline, entry), other_batch(baseline, entry)
    found = [*work, *batch, *other_means(baseline, entry)]
    text = times(speedup(baseline, entry))
    if not found:
        return text
    # A best row may choose its batch size; other work never gets a speedup.
    withheld = work or (batch and not entry.row.best)
    caveat = "; ".join(found)
    caveat = f"No speedup, different work: {caveat}." if withheld else f"Differs in {caveat}."
    if caveat not in caveats:
        caveats.append(caveat)
    mark = f"[{caveats.index(caveat) + 1}]"
    return f"{_NOTHING} {mark}" if withheld else text.replace("×", f"× {mark}")


def _utilization(entry: Entry) -> str:
    peak = entry.row.peak_flops_per_second
    fraction = f" ({100 * entry.flops_per_second / peak:.0f} %)" if peak else ""
    return f"{entry.flops_per_second / 1e12:.3g}{fraction}"


def _energy(entry: Entry) -> str:
    if not entry.row.joules:
        return _NOTHING
    joules = statistics.median(entry.row.joules) / entry.row.images * entry.result.images_per_epoch
    return f"{joules / 1000:.3g}"


def _cost(entry: Entry, prices: Mapping[str, float]) -> str:
    setting = entry.row.setting
    price = prices.get(setting.device, prices.get(setting.kind))
    if price is None:
        return _NOTHING
    seconds = entry.epoch_seconds[0] * entry.result.recipe_epochs
    if cold := entry.row.cold:
        seconds += cold.seconds - cold.training_seconds
    return f"{price * seconds / 3600:.3g}"


def _explain(entries: Sequence[Entry], baseline: Entry) -> Iterable[str]:
    """Explain the columns of the main table."""
    results = [entry.result for entry in entries]
    configs = [result.config for result in results]
    repeats = sorted({len(entry.row.seconds) for entry in entries})
    steps = sorted({entry.row.steps for entry in entries if entry.row.strict})
    models = _each(one.model.name for one in configs)
    datasets = _each(one.data.dataset for one in configs)
    recipes = _each(one.recipe for one in configs)
    images = _each(f"{one.images_per_epoch:,}" for one in results)
    flops = _each(f"{one.flops_per_image / 1e6:,.1f}" for one in results)
    counted = _each(f"{one.counted_flops_per_image / 1e6:,.1f}" for one in results)
    yield (
        f"Median (minimum to maximum) of {_range(repeats)} interleaved repeats; each trains "
        f"{models} on {datasets} with recipe {recipes} for {_range(steps)} steps."
    )
    yield (
        f"s/epoch: the time for {images} images at this rate. speedup: images/s relative to "
        f"{baseline.label}. accuracy: on the test set after these few steps, not after the recipe."
    )
    yield (
        f"TFLOP/s: counted as direct convolution, {flops} MFLOP per image (torch's counter: "
        f"{counted}). The compiled Winograd kernels need fewer, so they can exceed 100 % of the "
        "peak, which is a large matrix product on the same device."
    )
    yield (
        "strict: PyTorch's own kernels in full fp32, TF32 off. best: the fastest setting found for "
        "the device."
    )


def _each(words: Iterable[str]) -> str:
    """Join distinct values; results side by side may be of different trainings."""
    return " and ".join(dict.fromkeys(words))


def _range(numbers: Sequence[int]) -> str:
    """Write "5" or "3 to 5"; "?" if there is no number."""
    return " to ".join(map(str, dict.fromkeys((numbers[0], numbers[-1])))) if numbers else "?"
