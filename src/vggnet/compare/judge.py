"""What may be concluded from measured rows: ratios, and whether they may be stated; no torch."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from vggnet.compare.result import Result, Row
from vggnet.config import differences as config_differences

_FREE = {
    *("train.device", "train.precision", "train.threads", "train.kernels"),
    *("train.global_batch_size", "train.epochs"),
    *("data.dataset", "data.data_dir", "data.download"),
}
"""Settings of a training that rows may differ in: a row's setting or `steps` tells the first ones,
and the dataset's hash the others."""

_SAME_START = {"fp32": 1e-3, "tf32": 1e-2, "bf16": 2e-2, "fp16": 2e-2}
"""Relative difference of the first step's loss that rounding in a precision explains."""
_DROPOUT_START = 0.1
"""The same with dropout, whose draws differ from device to device."""


@dataclass(frozen=True)
class Entry:
    """A row, and the result that it stands in."""

    row: Row
    result: Result
    source: str
    """What to call the result where there are several; empty where there is one."""

    @property
    def label(self) -> str:
        """The row in a few words, unlike any other of the report."""
        prefix = f"{self.source}: " if self.source else ""
        return prefix + self.row.setting.label

    @property
    def images_per_second(self) -> tuple[float, float, float]:
        """Median, least and most over the repeats."""
        rates = [self.row.images / seconds for seconds in self.row.seconds]
        return statistics.median(rates), min(rates), max(rates)

    @property
    def epoch_seconds(self) -> tuple[float, float, float]:
        """Seconds that an epoch takes at the measured rate: median, least, most."""
        rate, least, most = self.images_per_second
        images = self.result.images_per_epoch
        return images / rate, images / most, images / least

    @property
    def flops_per_second(self) -> float:
        """Achieved, counting the operations of direct convolution."""
        return self.images_per_second[0] * self.result.flops_per_image


@dataclass(frozen=True)
class Difference:
    """Something in which two rows are not alike."""

    what: str
    forbids: bool
    """Whether it makes the two different work, so that no ratio may be stated."""
    of_batch: bool = False
    """Whether it is the size of a batch, which a device at its best may choose, or comes of it."""


@dataclass(frozen=True)
class Speedup:
    """How many times as fast a row is as its baseline, in images a second."""

    median: float
    low: float
    high: float
    paired: bool
    """From repeats that ran in turns; else from the extremes of two separate runs."""


def entries_of(results: Sequence[tuple[str, Result]]) -> list[Entry]:
    """Return every row of some results, each with what to call it."""
    several = len(results) > 1
    return [
        Entry(row, result, source if several else "")
        for source, result in results
        for row in result.rows
    ]


def choose_baseline(entries: Sequence[Entry]) -> Entry:
    """Return the fastest strict row on a CPU; without one, the slowest of all."""
    speed = {id(entry): entry.images_per_second[0] for entry in entries}
    on_cpu = [one for one in entries if one.row.setting.kind == "cpu" and one.row.strict]
    if on_cpu:
        return max(on_cpu, key=lambda one: speed[id(one)])
    return min(entries, key=lambda one: speed[id(one)])


def speedup(baseline: Entry, entry: Entry) -> Speedup:
    """Divide a row's images a second by the baseline's, repeat by repeat where they were in turns.

    Rows of different runs have no pairs; their range is then the widest that fits.
    """
    ours = [entry.row.images / seconds for seconds in entry.row.seconds]
    theirs = [baseline.row.images / seconds for seconds in baseline.row.seconds]
    if entry.result is baseline.result:
        ratios = [a / b for a, b in zip(ours, theirs, strict=False)]
        return Speedup(statistics.median(ratios), min(ratios), max(ratios), paired=True)
    median = statistics.median(ours) / statistics.median(theirs)
    return Speedup(median, min(ours) / max(theirs), max(ours) / min(theirs), paired=False)


def differences(baseline: Entry, entry: Entry) -> list[Difference]:
    """Name everything in which two rows are not alike, beside the device itself."""
    return [*_different_work(baseline, entry), *_different_means(baseline, entry)]


def other_work(baseline: Entry, entry: Entry) -> list[str]:
    """Name what forbids to compare two rows at all, even where each is at its best."""
    found = _different_work(baseline, entry)
    return [one.what for one in found if one.forbids and not one.of_batch]


def accuracy_difference(baseline: Entry, entry: Entry) -> tuple[float, float, float] | None:
    """Return accuracy minus the baseline's, and its 95 % interval, all from -1 to 1.

    The same images were shown to both, so only those count on which they disagree
    (Agresti and Min, Statistics in Medicine 24, 2005: Wald's interval after half an image
    is added to each kind). None where the test images are not the same.
    """
    count = entry.row.test_images
    if (
        count != baseline.row.test_images
        or entry.result.dataset_sha256 != baseline.result.dataset_sha256
    ):
        return None
    ours, theirs = set(entry.row.mistakes), set(baseline.row.mistakes)
    better, worse = len(theirs - ours) + 0.5, len(ours - theirs) + 0.5
    total = count + 2
    centre = (better - worse) / total
    spread = 1.959964 * math.sqrt(better + worse - (better - worse) ** 2 / total) / total
    return (len(theirs) - len(ours)) / count, centre - spread, centre + spread


def _different_work(baseline: Entry, entry: Entry) -> Iterator[Difference]:
    a, b = baseline.result, entry.result
    if a.dataset_sha256 != b.dataset_sha256:
        yield Difference(
            f"dataset ({_both(a.dataset_sha256[:12], b.dataset_sha256[:12])} by SHA-256)", True
        )
    elif a.images_per_epoch != b.images_per_epoch:
        yield Difference(f"images an epoch ({_both(a.images_per_epoch, b.images_per_epoch)})", True)
    for name, left, right in config_differences(a.config, b.config, _FREE):
        yield Difference(f"{name} ({_both(left, right)})", True)
    sizes = (baseline.row.setting.global_batch_size, entry.row.setting.global_batch_size)
    if sizes[0] != sizes[1]:
        yield Difference(f"batch size ({_both(*sizes)})", True, of_batch=True)
    if baseline.row.steps != entry.row.steps:
        steps = _both(baseline.row.steps, entry.row.steps)
        yield Difference(f"steps ({steps})", True, of_batch=True)
    if sizes[0] == sizes[1] and (start := _different_start(baseline, entry)):
        yield Difference(start, True)


def _different_means(baseline: Entry, entry: Entry) -> Iterator[Difference]:
    a, b = baseline.result, entry.result
    settings = (baseline.row.setting, entry.row.setting)
    pairs = {
        "precision": tuple(one.precision for one in settings),
        "convolutions": tuple(
            "PyTorch's" if one.kernels == "torch" else "compiled" for one in settings
        ),
        "torch": (a.machine.torch.partition("+")[0], b.machine.torch.partition("+")[0]),
        "vggnet": (a.machine.vggnet, b.machine.vggnet),
    }
    for name, (left, right) in pairs.items():
        if left != right:
            yield Difference(f"{name} ({_both(left, right)})", False)
    for one in {id(one.result): one for one in (baseline, entry)}.values():
        if not one.result.complete:
            yield Difference(f"completeness ({one.source or 'the run'} was cut short)", False)


def _different_start(baseline: Entry, entry: Entry) -> str | None:
    """Say if the first losses show that weights or batches were not the same."""
    left, right = baseline.row.step_losses[0], entry.row.step_losses[0]
    allowed = max(_SAME_START[one.row.setting.precision] for one in (baseline, entry))
    if baseline.result.config.model.dropout:
        allowed = _DROPOUT_START
    if abs(left - right) <= allowed * max(left, right):
        return None
    return f"loss of the first step ({_both(f'{left:.4f}', f'{right:.4f}')})"


def _both(left: object, right: object) -> str:
    return f"{left} and {right}"
