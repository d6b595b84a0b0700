"""Which rows may be compared: what differs, speedups and accuracy differences; no torch."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vggnet.compare.result import Result, Row
from vggnet.config import differences

FREE = {
    *(f"train.{name}" for name in ("device", "precision", "threads", "kernels")),
    *("train.global_batch_size", "train.epochs", "train.min_steps", "train.minutes"),
    *("train.patience", "train.keep"),
    *("data.dataset", "data.data_dir", "data.download", "data.cache"),
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


def other_work(baseline: Entry, entry: Entry) -> list[str]:
    """Return the differences that rule out any comparison of two rows."""
    a, b = baseline.result, entry.result
    found = []
    if a.dataset_sha256 != b.dataset_sha256:
        found.append(f"dataset (SHA-256 {a.dataset_sha256[:12]} and {b.dataset_sha256[:12]})")
    elif a.images_per_epoch != b.images_per_epoch:
        found.append(f"images per epoch ({a.images_per_epoch} and {b.images_per_epoch})")
    found += [
        f"{name} ({left} and {right})"
        for name, left, right in differences(a.config, b.config, FREE)
    ]
    left, right = baseline.row.step_losses[0], entry.row.step_losses[0]
    allowed = max(_SAME_START[one.row.setting.precision] for one in (baseline, entry))
    if a.config.model.dropout:
        allowed = _DROPOUT_START
    same_batch = baseline.row.setting.global_batch_size == entry.row.setting.global_batch_size
    if same_batch and abs(left - right) > allowed * max(left, right):
        found.append(f"loss of the first step ({left:.4f} and {right:.4f})")
    return found


def other_batch(baseline: Entry, entry: Entry) -> list[str]:
    """Return the differences in batch size and steps, which only best rows may have."""
    return _unequal(
        {
            "batch size": [one.row.setting.global_batch_size for one in (baseline, entry)],
            "steps": [one.row.steps for one in (baseline, entry)],
        }
    )


def other_means(baseline: Entry, entry: Entry) -> list[str]:
    """Return the differences in how the same work is done, other than the device."""
    both, kernels = (baseline, entry), {"torch": "PyTorch", "winograd": "compiled"}
    found = _unequal(
        {
            "precision": [one.row.setting.precision for one in both],
            "convolution kernels": [kernels[one.row.setting.kernels] for one in both],
            "torch": [one.result.machine.torch.partition("+")[0] for one in both],
            "vggnet": [one.result.machine.vggnet for one in both],
        }
    )
    cut = [one for one in distinct_results(both) if not one.result.complete]
    return found + [f"completeness ({one.source or 'the run'} was cut short)" for one in cut]


def _unequal(pairs: Mapping[str, Sequence[object]]) -> list[str]:
    return [f"{name} ({a} and {b})" for name, (a, b) in pairs.items() if a != b]


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
