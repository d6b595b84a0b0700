"""Carry a comparison out: choose, warm up, repeat in turns, explain; keep what is done."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from datetime import datetime

import torch

from vggnet.compare.cold import ColdStartError, train_cold
from vggnet.compare.energy import Meter, Rapl, describe_accelerator, find_meter
from vggnet.compare.flops import count_flops_per_image, flops_per_image, measure_peak
from vggnet.compare.machine import describe_machine
from vggnet.compare.measure import (
    OnStep,
    Timer,
    Training,
    evaluate_weights,
    time_fit,
    time_parts,
    time_steps,
)
from vggnet.compare.plan import (
    BATCHES,
    WIDTHS,
    Plan,
    candidate_settings,
    strict_settings,
    widen,
)
from vggnet.compare.result import Cold, Parts, Result, Row, Setting, SweepPoint, Timing
from vggnet.config import Config
from vggnet.errors import DeviceError, TrainingDivergedError

WARMUP_STEPS = 5
"""Of each row, before its first repeat; a report shows that they settle."""
_TRIAL_STEPS = 10
"""At most, of each candidate for the best; with a tenth of a row's steps if that is less."""
_WORTH_IT = 1.05
"""A larger batch is called best where it is so much faster: it learns less from an epoch."""
_PARTS_STEPS = 40
"""At most, half of which are split: medians of 20."""
_SWEEP_SHARE = 0.2
"""Of a row's images, for each point of a sweep."""
_SWEEP_REPEATS = 3
_COLD_OVERHEAD = 8.0
"""Seconds of imports, evaluation and files, for the estimate of the time left alone."""

_CANNOT = (DeviceError, TrainingDivergedError, torch.OutOfMemoryError)
"""What rules a candidate or a point of a sweep out, without ending the comparison."""


class Observer:
    """What a comparison tells while it goes on; this one keeps silent."""

    def began(self, what: str) -> None:
        """Something takes up to minutes from now on."""

    def expected(self, seconds: float) -> None:
        """So much is left in all, as far as the warm-up tells."""

    def advanced(self, seconds: float) -> None:
        """So much of what was expected is done; called at every step of a timed loop."""

    def warned(self, message: str) -> None:
        """Something was left out."""


@dataclass
class _Lane:
    """A row in the making."""

    training: Training
    strict: bool
    best: bool
    meter: Meter | None
    warmup_seconds: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    joules: list[float] = field(default_factory=list)
    step_losses: list[float] = field(default_factory=list)
    mistakes: list[int] = field(default_factory=list)
    test_images: int = 0
    peak: float | None = None
    parts: Parts | None = None
    cold: Cold | None = None

    @property
    def step_seconds(self) -> float:
        """What a step takes, roughly."""
        return statistics.median(self.warmup_seconds)

    @property
    def measured(self) -> bool:
        """Whether the first repeat and its evaluation are complete."""
        return bool(self.seconds) and self.test_images > 0

    def row(self) -> Row:
        """Return what is known of it so far."""
        return Row(
            setting=self.training.setting,
            images=self.training.images,
            seconds=tuple(self.seconds),
            strict=self.strict,
            best=self.best,
            steps=self.training.steps,
            warmup_seconds=tuple(self.warmup_seconds),
            step_losses=tuple(self.step_losses),
            mistakes=tuple(self.mistakes),
            test_images=self.test_images,
            peak_flops_per_second=self.peak,
            parts=self.parts,
            cold=self.cold,
            joules=tuple(self.joules) if self.meter else None,
        )


class Comparison:
    """One machine's comparison; `run` may be interrupted, and `result` gives what is done.

    Args:
        plan: What to compare.
        observer: Told of the progress.
        timer: Clock and wait.
    """

    def __init__(
        self, plan: Plan, observer: Observer | None = None, timer: Timer | None = None
    ) -> None:
        self.plan = plan
        self._observer = observer or Observer()
        self._timer = timer or Timer()
        self._machine = describe_machine(plan.devices)
        self._lanes: list[_Lane] = []
        self._trials: list[Timing] = []
        self._sweep: list[SweepPoint] = []
        self._complete = False

    def run(self) -> None:
        """Measure everything that the plan asks for.

        Raises:
            TrainingDivergedError: The recipe's loss is not finite.
        """
        self._choose_rows()
        self._warm_up()
        self._observer.expected(self._estimate())
        for repeat in range(self.plan.repeats):
            self._observer.began(f"repeat {repeat + 1} of {self.plan.repeats}")
            # There and back again: a drift of the machine's speed then favours no row.
            for lane in self._lanes if repeat % 2 == 0 else reversed(self._lanes):
                self._repeat(lane)
        self._observe_clocks()
        self._explain()
        self._start_cold()
        if self.plan.sweep:
            self._carry_out_sweep()
        self._complete = True

    def result(self) -> Result | None:
        """Return what was measured; None while no row has a repeat."""
        rows = tuple(lane.row() for lane in self._lanes if lane.measured)
        if not rows:
            return None
        plan, model = self.plan, self.plan.config.model
        rapl = any(lane.meter for lane in self._lanes if lane.training.setting.kind == "cpu")
        # Where the data lie is this machine's own affair.
        data = plan.config.data.model_copy(update={"data_dir": None})
        return Result(
            complete=self._complete,
            created=datetime.now().astimezone().isoformat(timespec="seconds"),
            options=plan.options,
            machine=self._machine,
            config=plan.config.model_copy(update={"data": data}),
            dataset_sha256=plan.dataset.sha256,
            images_per_epoch=len(plan.dataset.train),
            recipe_epochs=plan.config.train.epochs,
            flops_per_image=flops_per_image(model),
            counted_flops_per_image=count_flops_per_image(model),
            energy_source=Rapl.name if rapl else None,
            rows=rows,
            trials=tuple(self._trials),
            sweep=tuple(self._sweep),
        )

    def _training(self, setting: Setting, images: float, config: Config | None = None) -> Training:
        steps = max(1, round(images / setting.global_batch_size))
        return Training(setting, config or self.plan.config, self.plan.dataset, steps)

    def _choose_rows(self) -> None:
        """Take every strict setting, and of each device the candidate that is fastest."""
        steps = max(2, min(_TRIAL_STEPS, self.plan.steps // 10))
        images = steps * self.plan.config.train.global_batch_size
        best = []
        for device in self.plan.devices:
            self._observer.began(f"looking for the best setting of {device}")
            trials = []
            for setting in candidate_settings(self.plan, device):
                training = self._training(setting, images)
                if seconds := self._try(training):
                    trials.append(
                        Timing(setting=setting, images=training.images, seconds=(seconds,))
                    )
            if trials:
                best.append(max(trials, key=self._worth).setting)
            self._trials += trials
        strict = strict_settings(self.plan)
        for setting in [*strict, *(one for one in best if one not in strict)]:
            training = self._training(setting, self.plan.images)
            meter = find_meter(training.device)
            self._lanes.append(_Lane(training, setting in strict, setting in best, meter))

    def _worth(self, trial: Timing) -> float:
        rate = trial.images / trial.seconds[0]
        own = self.plan.config.train.global_batch_size
        return rate if trial.setting.global_batch_size == own else rate / _WORTH_IT

    def _try(self, training: Training) -> float | None:
        """Time a training once, after two steps to warm up; None where it cannot be done."""
        try:
            for steps in (2, training.steps):
                seconds, _ = self._time(
                    Training(training.setting, training.config, training.dataset, steps)
                )
        except _CANNOT as error:
            self._observer.warned(f"{training.setting.label} left out: {error}")
            return None
        return seconds

    def _time(self, training: Training, step_seconds: float = 0.0) -> tuple[float, list[float]]:
        with training.computing():
            state, batches = training.begin()
            return time_fit(state, batches, self._timer, self._advance(step_seconds))

    def _advance(self, step_seconds: float) -> OnStep:
        advanced = self._observer.advanced
        return lambda state: advanced(step_seconds)

    def _warm_up(self) -> None:
        for lane in self._lanes:
            training = lane.training
            self._observer.began(f"warming up {training.setting.label}")
            first = Training(training.setting, training.config, training.dataset, WARMUP_STEPS)
            with training.computing():
                lane.warmup_seconds = time_steps(*first.begin(), self._timer)

    def _estimate(self) -> float:
        rows = sum(lane.step_seconds * lane.training.steps for lane in self._lanes)
        parts = sum(lane.step_seconds * self._parts_steps(lane) for lane in self._lanes)
        cold = sum(
            lane.step_seconds * lane.training.steps + _COLD_OVERHEAD for lane in self._headline()
        )
        sweep = 0.0
        for training, lane, _ in self._sweep_points():
            wider = flops_per_image(training.config.model) / flops_per_image(self.plan.config.model)
            per_image = lane.step_seconds / lane.training.setting.global_batch_size
            sweep += _SWEEP_REPEATS * training.images * per_image * wider
        return self.plan.repeats * rows + parts + cold + sweep

    def _repeat(self, lane: _Lane) -> None:
        training = lane.training
        with training.computing():
            state, batches = training.begin()
            before = lane.meter() if lane.meter else 0.0
            advance = self._advance(lane.step_seconds)
            seconds, losses = time_fit(state, batches, self._timer, advance)
            joules = lane.meter() - before if lane.meter else 0.0
            if not lane.test_images:
                found = evaluate_weights(state, training)
                wrong = (found.predictions != found.labels).nonzero()[0]
                lane.mistakes, lane.test_images = wrong.tolist(), found.count
                lane.step_losses = losses
        lane.seconds.append(seconds)
        lane.joules.append(joules)

    def _observe_clocks(self) -> None:
        """Read the accelerators' clocks while they are warm."""
        devices = [one for one in self.plan.devices if one.type != "cpu"]
        now = tuple(describe_accelerator(one) for one in devices)
        self._machine = self._machine.model_copy(update={"accelerators": now})

    def _parts_steps(self, lane: _Lane) -> int:
        return max(4, min(_PARTS_STEPS, lane.training.steps))

    def _explain(self) -> None:
        """Split each row's step into its parts, and find what its device can do at most."""
        for lane in self._lanes:
            training, setting = lane.training, lane.training.setting
            self._observer.began(f"splitting the step of {setting.label}")
            steps = self._parts_steps(lane)
            some = Training(setting, training.config, training.dataset, steps)
            with training.computing():
                lane.parts = time_parts(*some.begin(), self._timer)
                lane.peak = measure_peak(training.device, setting.precision, self._timer)
            self._observer.advanced(lane.step_seconds * steps)

    def _headline(self) -> list[_Lane]:
        """Return the rows that a conclusion is drawn from: each device's strict and best.

        Where a CPU is compared with itself, the fewest threads as well.
        """
        chosen = [lane for lane in self._lanes if lane.best]
        for device in self.plan.devices:
            strict = [one for one in self._lanes if one.strict and one.training.device == device]
            chosen.append(min(strict, key=lambda one: one.step_seconds))
            if len(self.plan.devices) == 1:
                chosen.append(strict[0])
        return [lane for lane in self._lanes if any(lane is one for one in chosen)]

    def _start_cold(self) -> None:
        for lane in self._headline():
            self._observer.began(f"vggnet train from a cold start: {lane.training.setting.label}")
            try:
                lane.cold = train_cold(lane.training.settings(), self._timer)
            except ColdStartError as error:
                self._observer.warned(f"no cold start of {lane.training.setting.label}: {error}")
            self._observer.advanced(lane.step_seconds * lane.training.steps + _COLD_OVERHEAD)

    def _sweep_points(self) -> list[tuple[Training, _Lane, float]]:
        """Return each point's training, the row whose curve it is on, and its x."""
        plan, images = self.plan, self.plan.images * _SWEEP_SHARE
        own = plan.config.train.global_batch_size
        points = []
        for lane in self._headline():
            setting = lane.training.setting
            if plan.sweep == "batch":
                for size in sorted({*BATCHES, own}):
                    if size <= len(plan.dataset.train):
                        changed = setting.model_copy(update={"global_batch_size": size})
                        points.append((self._training(changed, images), lane, float(size)))
            elif plan.sweep == "width":
                for by in WIDTHS:
                    model = widen(plan.config.model, by)
                    config = plan.config.model_copy(update={"model": model})
                    points.append((self._training(setting, images, config), lane, by))
        return points

    def _carry_out_sweep(self) -> None:
        """Measure the points x by x, the curves in turns at each."""
        assert self.plan.sweep
        points = self._sweep_points()
        for x in sorted({x for _, _, x in points}):
            here: dict[Training, list[float]] = {
                training: [] for training, _, at in points if at == x
            }
            for _ in range(_SWEEP_REPEATS):
                for training, seconds in here.items():
                    self._observer.began(
                        f"sweep: {self.plan.sweep} {x:g}, {training.setting.label}"
                    )
                    if one := self._try(training):
                        seconds.append(one)
            self._sweep += [
                SweepPoint(
                    setting=training.setting,
                    images=training.images,
                    seconds=tuple(seconds),
                    sweep=self.plan.sweep,
                    x=x,
                )
                for training, seconds in here.items()
                if seconds
            ]
