"""What a report says beside its table: where time goes, whether the work was the same, and how."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from vggnet.compare.conclude import crossovers, curves_of, join_words, share_saved
from vggnet.compare.figures import Lines, Series, Stacks
from vggnet.compare.judge import Entry, accuracy_difference, other_work
from vggnet.compare.result import PARTS, Result
from vggnet.compare.section import Section, Table


def show_parts(entries: Sequence[Entry], baseline: Entry) -> Section | None:
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
        and not other_work(baseline, entry)
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


def show_same_work(entries: Sequence[Entry], baseline: Entry) -> Section:
    """Lay the loss curves over each other, and compare accuracies on the same test images."""
    rows = []
    for entry in entries:
        if entry is baseline:
            continue
        found = accuracy_difference(baseline, entry)
        text = "other test images"
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
    others = [entry.label for entry in entries if other_work(baseline, entry)]
    work = (
        f"These rows did other work than {baseline.label}: {join_words(others)}."
        if others
        else "Every row starts from the same weights and takes the same images in the same order; "
        "the loss curves lie over each other as far as rounding lets them."
    )
    return Section(
        "Not the same work" if others else "The same work",
        (
            f"{work} Accuracy is compared on the same test images, with the 95 % interval of "
            "paired samples.",
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


def show_threads(entries: Sequence[Entry]) -> Section | None:
    """Plot the CPU's strict rows against their thread counts, where several were measured."""
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


def show_sweeps(entries: Sequence[Entry], baseline: Entry) -> list[Section]:
    """Plot rates over batch size or width, and say where a device starts to win."""
    alike = not any(other_work(baseline, entry) for entry in entries)
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
            Section(
                f"Crossover: {title}", tuple(crossovers(curves)) if alike else (), table, figure
            ),
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


def show_starts(entries: Sequence[Entry]) -> Section | None:
    """Set warm-up and a whole `vggnet train` beside the steady rate."""
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
            "and the images. The last column says how the rate of its steps, by its own clock, "
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


def show_trials(entries: Sequence[Entry]) -> Section | None:
    """List the short runs that chose each device's best setting."""
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


def show_machine(source: str, result: Result) -> Section:
    """Say what a result was measured on, and by which command."""
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


def _figures(value: float) -> str:
    """Write three digits that mean something, without an exponent."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
