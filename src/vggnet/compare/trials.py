"""Short runs that choose each device's best setting, rows in progress, and sweeps."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch

from vggnet.compare.hardware import Meter, flops_per_image
from vggnet.compare.measure import (
    MAX_WARMUP_STEPS,
    Timer,
    Workload,
    free_memory,
    time_fit,
    time_steps,
)
from vggnet.compare.plan import BATCHES, WIDTHS, ComparisonPlan, Observer, candidate_settings
from vggnet.compare.result import ColdStart, Parts, Row, Setting, SweepPoint, Timing
from vggnet.engine.fit import TrainState
from vggnet.errors import DeviceError, OutOfMemoryError, TrainingDivergedError

_TRIAL_STEPS = 10
"""Steps of a trial; a tenth of a row's steps if that is less."""
_WORTH_IT = 1.05
"""A larger batch must be this much faster to be called best: it learns less per epoch."""
_HOPELESS = 4
"""A setting that is this many times slower than the fastest one is not tried with larger batches.

On a CPU that emulates bf16, these took 8.9 of the 13.8 CPU s of all trials (vgg-mini at width 0.25,
n = 1)."""
_SWEEP_FRACTION = 0.2
"""Images of a sweep point, as a fraction of a row's."""
_SWEEP_REPEATS = 3

_DURATION, _WARMUP = 0.3, 0.1
"""Minimum durations of a trial and its warm-up, as fractions of a repeat's."""

_CANNOT = (DeviceError, TrainingDivergedError, OutOfMemoryError)
"""Errors that exclude a setting without ending the comparison."""


@dataclass
class Lane:
    """A row in progress: the measurements of one setting so far."""

    workload: Workload
    strict: bool
    best: bool
    meter: Meter | None
    warmup_seconds: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    clocks: list[float | None] = field(default_factory=list)
    joules: list[float] = field(default_factory=list)
    step_losses: list[float] = field(default_factory=list)
    mistakes: list[int] = field(default_factory=list)
    test_images: int = 0
    passes: int = 1
    peak: float | None = None
    parts: Parts | None = None
    cold: ColdStart | None = None

    @property
    def step_seconds(self) -> float:
        """Approximate duration of a step after the warm-up."""
        return statistics.median(self.warmup_seconds[-len(self.warmup_seconds) // 3 :])

    @property
    def measured(self) -> bool:
        """Whether the first repeat and its evaluation are complete."""
        return bool(self.seconds) and self.test_images > 0

    def row(self) -> Row:
        """Return the measurements so far."""
        lists = ("seconds", "warmup_seconds", "step_losses", "mistakes")
        same = ("strict", "best", "passes", "test_images", "parts", "cold")
        # Ctrl-C may arrive before a repeat's seconds, which are appended last.
        joules, clocks = self.joules[: len(self.seconds)], self.clocks[: len(self.seconds)]
        shortest = self.passes * min(self.seconds)
        return Row(
            setting=self.workload.setting,
            images=self.workload.images,
            steps=self.workload.steps,
            peak_flops_per_second=self.peak,
            joules=tuple(joules) if self.meter and self.meter.resolves(shortest) else None,
            clock_mhz=tuple(filter(None, clocks)) if all(clocks) else None,
            **{name: tuple(getattr(self, name)) for name in lists},
            **{name: getattr(self, name) for name in same},
        )


class Trials:
    """Short measurements; a setting that fails is left out with a warning.

    Args:
        plan: What to compare.
        observer: Receives progress and warnings.
        timer: Clock and synchronization.
    """

    def __init__(self, plan: ComparisonPlan, observer: Observer, timer: Timer) -> None:
        self.timings: list[Timing] = []
        self._plan, self._observer, self._timer = plan, observer, timer

    def find_best(self, device: torch.device) -> Setting | None:
        """Return the fastest candidate of a device; None if none works."""
        steps = max(2, min(_TRIAL_STEPS, self._plan.steps // 10))
        images = steps * self._plan.config.train.global_batch_size
        timings: list[Timing] = []
        for setting in candidate_settings(self._plan, device):
            workload = self._plan.workload(setting, images)
            if self._is_hopeless(setting, timings):
                continue
            if seconds := self._attempt(workload):
                timings.append(Timing(setting=setting, images=workload.images, seconds=(seconds,)))
        self.timings += timings
        return max(timings, key=self._worth).setting if timings else None

    def sweep_seconds(self, lanes: Sequence[Lane]) -> float:
        """Estimate the duration of `sweep`."""
        points = self._sweep_points(lanes).values()
        return _SWEEP_REPEATS * sum(sum(point.values()) for point in points)

    def sweep(self, lanes: Sequence[Lane]) -> Iterator[SweepPoint]:
        """Measure the rows at other batch sizes or widths, interleaved at each point."""
        assert self._plan.sweep
        for x, point in sorted(self._sweep_points(lanes).items()):
            seconds: dict[Workload, list[float]] = {workload: [] for workload in point}
            for _ in range(_SWEEP_REPEATS):
                for workload, expected in point.items():
                    label = workload.setting.label
                    self._observer.began(f"sweep: {self._plan.sweep} {x:g}, {label}")
                    if one := self._attempt(workload):
                        seconds[workload].append(one)
                    self._observer.advanced(expected)
            for workload, repeats in seconds.items():
                if repeats:
                    yield SweepPoint(
                        setting=workload.setting,
                        images=workload.images,
                        seconds=tuple(repeats),
                        sweep=self._plan.sweep,
                        x=x,
                    )

    def _attempt(self, workload: Workload) -> float | None:
        """Return the seconds of a training after a warm-up; None if it cannot run."""

        def warm(seconds: list[float]) -> bool:
            return len(seconds) >= 2 and sum(seconds) >= _WARMUP * self._plan.min_seconds

        try:
            with workload.computing():
                state, batches = workload.shortened(MAX_WARMUP_STEPS).begin()
                warmup = time_steps(state, batches, self._timer, warm)
                passes = workload.passes(warmup[-1], _DURATION * self._plan.min_seconds)
                states = [workload.build_state() for _ in range(passes)]
                seconds, _ = time_fit(states, batches, self._timer, self._on_step)
        except _CANNOT as error:
            self._observer.warned(f"{workload.setting.label} left out: {error}")
            free_memory(workload.device)
            return None
        return seconds

    def _is_hopeless(self, setting: Setting, timings: Sequence[Timing]) -> bool:
        """Whether a setting was so slow with the recipe's batch that a larger one cannot win."""
        own = self._plan.config.train.global_batch_size
        rates = {
            one.setting: one.images_per_second[0]
            for one in timings
            if one.setting.global_batch_size == own
        }
        rate = rates.get(setting.model_copy(update={"global_batch_size": own}))
        return rate is not None and _HOPELESS * rate < max(rates.values())

    def _on_step(self, state: TrainState) -> None:
        self._observer.advanced(0.0)  # trials are not in the estimate

    def _worth(self, timing: Timing) -> float:
        rate = timing.images_per_second[0]
        own = self._plan.config.train.global_batch_size
        return rate if timing.setting.global_batch_size == own else rate / _WORTH_IT

    def _sweep_points(self, lanes: Sequence[Lane]) -> dict[float, dict[Workload, float]]:
        """Return each x's workloads with their expected seconds, each setting once."""
        points: dict[float, dict[Workload, float]] = {}
        own_flops = flops_per_image(self._plan.config.model)
        for lane in lanes:
            per_image = lane.step_seconds / lane.workload.setting.global_batch_size
            for x, workload in self._sweep_workloads(lane.workload.setting):
                point = points.setdefault(x, {})
                if workload.setting not in [one.setting for one in point]:
                    wider = flops_per_image(workload.config.model) / own_flops
                    point[workload] = workload.images * per_image * wider
        return points

    def _sweep_workloads(self, setting: Setting) -> Iterator[tuple[float, Workload]]:
        plan = self._plan
        images = plan.images * _SWEEP_FRACTION
        if plan.sweep == "batch":
            for size in sorted({*BATCHES, plan.config.train.global_batch_size}):
                if size <= len(plan.dataset.train):
                    changed = setting.model_copy(update={"global_batch_size": size})
                    yield float(size), plan.workload(changed, images)
        elif plan.sweep == "width":
            for by in WIDTHS:
                model = plan.config.model
                model = model.model_copy(update={"width": model.width * by})
                config = plan.config.model_copy(update={"model": model})
                yield by, plan.workload(setting, images, config)
