"""From which batch size or network width a device wins: the same rows at other sizes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from vggnet.compare.flops import flops_per_image
from vggnet.compare.lane import Lane
from vggnet.compare.measure import Training
from vggnet.compare.observer import Observer
from vggnet.compare.plan import BATCHES, WIDTHS, Plan
from vggnet.compare.result import Setting, SweepPoint
from vggnet.compare.trials import Trials

_SHARE = 0.2
"""Of a row's images, for each point."""
_REPEATS = 3


@dataclass(frozen=True, eq=False)
class Point:
    """A place on the curve of one row."""

    x: float
    """Batch size, or width as a multiple of the network's own."""
    training: Training
    seconds_expected: float


def sweep_points(plan: Plan, lanes: Sequence[Lane]) -> list[Point]:
    """Return the points of every row's curve; none without a sweep.

    Rows that a sweep makes alike, as one of batch sizes does, share a curve.
    """
    points: dict[tuple[float, Setting], Point] = {}
    for lane in lanes:
        per_image = lane.step_seconds / lane.training.setting.global_batch_size
        own_flops = flops_per_image(plan.config.model)
        for x, training in _trainings(plan, lane):
            wider = flops_per_image(training.config.model) / own_flops
            expected = _REPEATS * training.images * per_image * wider
            points.setdefault((x, training.setting), Point(x, training, expected))
    return list(points.values())


def _trainings(plan: Plan, lane: Lane) -> Iterator[tuple[float, Training]]:
    setting, images = lane.training.setting, plan.images * _SHARE
    if plan.sweep == "batch":
        for size in sorted({*BATCHES, plan.config.train.global_batch_size}):
            if size <= len(plan.dataset.train):
                changed = setting.model_copy(update={"global_batch_size": size})
                yield float(size), plan.training(changed, images)
    elif plan.sweep == "width":
        for by in WIDTHS:
            model = plan.config.model
            model = model.model_copy(update={"width": model.width * by})
            config = plan.config.model_copy(update={"model": model})
            yield by, plan.training(setting, images, config)


def measure_sweep(
    plan: Plan, points: Sequence[Point], trials: Trials, observer: Observer
) -> Iterator[SweepPoint]:
    """Measure point by point, the curves in turns at each."""
    assert plan.sweep
    for x in sorted({point.x for point in points}):
        here = [point for point in points if point.x == x]
        seconds: dict[Point, list[float]] = {point: [] for point in here}
        for _ in range(_REPEATS):
            for point in here:
                label = point.training.setting.label
                observer.began(f"sweep: {plan.sweep} {x:g}, {label}")
                if one := trials.attempt(point.training):
                    seconds[point].append(one)
                observer.advanced(point.seconds_expected / _REPEATS)
        for point in here:
            if seconds[point]:
                yield SweepPoint(
                    setting=point.training.setting,
                    images=point.training.images,
                    seconds=tuple(seconds[point]),
                    sweep=plan.sweep,
                    x=x,
                )
