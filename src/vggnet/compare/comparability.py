"""Which rows may be compared: what differs, speedups and accuracy differences; no torch."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from vggnet.compare.result import Result, Row
from vggnet.config import differences

_FREE = {
    *(f"train.{name}" for name in ("device", "precision", "threads", "kernels")),
    *("train.global_batch_size", "train.epochs"),
    *("data.dataset", "data.data_dir", "data.download"),
}
"""Settings that may differ: a row's setting or steps, or the dataset's hash, covers them."""

_SAME_START = {"fp32": 1e-3, "tf32": 1e-2, "bf16": 2e-2, "fp16": 2e-2}
"""Relative difference of the first step's loss that rounding explains, by precision."""
_DROPOUT_START = 0.1
"""The same with dropout, whose random numbers differ between devices."""


@dataclass(frozen=True)
class Entry:
    """A row and the result that it belongs to."""

    row: Row
    result: Result
    source: str
    """Name of the result if there are several, otherwise empty."""

    @property
    def label(self) -> str:
        """The row's unique name in a report."""
        return prefixed(self.source, self.row.setting.label)

    @property
    def rate(self) -> float:
        """Median images per second."""
        return self.row.images_per_second[0]

    @property
    def epoch_seconds(self) -> tuple[float, float, float]:
        """Seconds per epoch at the measured rate: median, minimum, maximum."""
        rate, least, most = self.row.images_per_second
        images = self.result.images_per_epoch
        return images / rate, images / most, images / least

    @property
    def flops_per_second(self) -> float:
        """Achieved FLOP/s, counted as direct convolution."""
        return self.rate * self.result.flops_per_image


def prefixed(source: str, label: str) -> str:
    """Put the name of a result, if it has one, in front of a label."""
    return f"{source}: {label}" if source else label


def distinct_results(entries: Sequence[Entry]) -> list[Entry]:
    """Return one entry of each result."""
    return list({id(one.result): one for one in reversed(entries)}.values())[::-1]


@dataclass(frozen=True)
class Difference:
    """Something that differs between two rows."""

    what: str
    forbids: bool
    """Whether the rows do different work, so that no speedup may be stated."""
    of_batch: bool = False
    """Whether it is the batch size or follows from it; a device's best row may choose that."""


def entries_of(results: Sequence[tuple[str, Result]]) -> list[Entry]:
    """Return every row of named results."""
    several = len(results) > 1
    return [
        Entry(row, result, source if several else "")
        for source, result in results
        for row in result.rows
    ]


def choose_baseline(entries: Sequence[Entry]) -> Entry:
    """Return the fastest strict CPU row; without one, the slowest row."""
    on_cpu = [one for one in entries if one.row.setting.kind == "cpu" and one.row.strict]
    if on_cpu:
        return max(on_cpu, key=lambda one: one.rate)
    return min(entries, key=lambda one: one.rate)


def speedup(baseline: Entry, entry: Entry) -> tuple[float, float, float]:
    """Divide a row's images per second by the baseline's: median, minimum, maximum.

    Rows of one result are divided repeat by repeat. Rows of separate runs have no pairs, so
    their range is the widest possible.
    """
    ours = [entry.row.images / seconds for seconds in entry.row.seconds]
    theirs = [baseline.row.images / seconds for seconds in baseline.row.seconds]
    if entry.result is baseline.result:
        ratios = [a / b for a, b in zip(ours, theirs, strict=False)]
        return statistics.median(ratios), min(ratios), max(ratios)
    median = statistics.median(ours) / statistics.median(theirs)
    return median, min(ours) / max(theirs), max(ours) / min(theirs)


def find_differences(baseline: Entry, entry: Entry) -> list[Difference]:
    """Return everything that differs between two rows except the device."""
    return [*_different_work(baseline, entry), *_different_means(baseline, entry)]


def other_work(baseline: Entry, entry: Entry) -> list[str]:
    """Return the differences that rule out any comparison, even of best rows."""
    found = _different_work(baseline, entry)
    return [one.what for one in found if one.forbids and not one.of_batch]


def accuracy_difference(baseline: Entry, entry: Entry) -> tuple[float, float, float] | None:
    """Return accuracy minus the baseline's with its 95 % interval, all from -1 to 1.

    Both rows saw the same test images, so only images on which they disagree count: Wald's
    interval after adding half an image to each kind (Agresti and Min, Statistics in Medicine
    24, 2005). None if the test images differ.
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
    center = (better - worse) / total
    margin = 1.959964 * math.sqrt(better + worse - (better - worse) ** 2 / total) / total
    return (len(theirs) - len(ours)) / count, center - margin, center + margin


def _different_work(baseline: Entry, entry: Entry) -> Iterator[Difference]:
    a, b = baseline.result, entry.result
    if a.dataset_sha256 != b.dataset_sha256:
        hashes = _both(a.dataset_sha256[:12], b.dataset_sha256[:12])
        yield Difference(f"dataset (SHA-256 {hashes})", True)
    elif a.images_per_epoch != b.images_per_epoch:
        images = _both(a.images_per_epoch, b.images_per_epoch)
        yield Difference(f"images per epoch ({images})", True)
    for name, left, right in differences(a.config, b.config, _FREE):
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
    kernels = {"torch": "PyTorch", "winograd": "compiled"}
    pairs: dict[str, list[str]] = {
        "precision": [one.precision for one in settings],
        "convolution kernels": [kernels[one.kernels] for one in settings],
        "torch": [one.machine.torch.partition("+")[0] for one in (a, b)],
        "vggnet": [one.machine.vggnet for one in (a, b)],
    }
    for name, (left, right) in pairs.items():
        if left != right:
            yield Difference(f"{name} ({_both(left, right)})", False)
    for one in distinct_results((baseline, entry)):
        if not one.result.complete:
            yield Difference(f"completeness ({one.source or 'the run'} was cut short)", False)


def _different_start(baseline: Entry, entry: Entry) -> str | None:
    """Return a message if the first losses show different weights or batches."""
    left, right = baseline.row.step_losses[0], entry.row.step_losses[0]
    allowed = max(_SAME_START[one.row.setting.precision] for one in (baseline, entry))
    if baseline.result.config.model.dropout:
        allowed = _DROPOUT_START
    if abs(left - right) <= allowed * max(left, right):
        return None
    return f"loss of the first step ({_both(f'{left:.4f}', f'{right:.4f}')})"


def _both(left: object, right: object) -> str:
    return f"{left} and {right}"
