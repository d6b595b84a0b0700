"""Carry a comparison out: choose, warm up, repeat in turns, explain; keep what is done."""

from __future__ import annotations

from datetime import datetime

from vggnet.compare.cold import ColdStartError, train_cold
from vggnet.compare.energy import Rapl, describe_accelerator, find_meter
from vggnet.compare.flops import count_flops_per_image, flops_per_image, measure_peak
from vggnet.compare.lane import Lane
from vggnet.compare.machine import describe_machine
from vggnet.compare.measure import OnStep, Timer, evaluate_weights, time_fit, time_parts, time_steps
from vggnet.compare.observer import Observer
from vggnet.compare.plan import Plan, strict_settings
from vggnet.compare.result import Result, SweepPoint, printable
from vggnet.compare.sweep import measure_sweep, sweep_points
from vggnet.compare.trials import Trials

WARMUP_STEPS = 5
"""Of each row, before its first repeat; a report shows that they settle."""
_PARTS_STEPS = 40
"""At most, half of which are split: medians of 20."""
_COLD_OVERHEAD = 8.0
"""Seconds of imports, evaluation and files, for the estimate of the time left alone."""


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
        # Counted before anything is measured: Ctrl-C in the middle of torch.no_grad can
        # leave gradients switched off, and the counter needs them.
        self._flops = flops_per_image(plan.config.model)
        self._counted_flops = count_flops_per_image(plan.config.model)
        self._lanes: list[Lane] = []
        self._trials = Trials(plan, self._observer, self._timer)
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
            points = sweep_points(self.plan, self._headline())
            for point in measure_sweep(self.plan, points, self._trials, self._observer):
                self._sweep.append(point)
        self._complete = True

    def result(self) -> Result | None:
        """Return what was measured; None while no row has a repeat."""
        rows = tuple(lane.row() for lane in self._lanes if lane.measured)
        if not rows:
            return None
        plan = self.plan
        rapl = any(lane.meter for lane in self._lanes if lane.training.setting.kind == "cpu")
        # Where the data lie is this machine's own affair.
        data = plan.config.data.model_copy(
            update={"data_dir": None, "dataset": printable(plan.dataset.name)}
        )
        return Result(
            complete=self._complete,
            created=datetime.now().astimezone().isoformat(timespec="seconds"),
            options=plan.options,
            machine=self._machine,
            config=plan.config.model_copy(update={"data": data}),
            dataset_sha256=plan.dataset.sha256,
            images_per_epoch=len(plan.dataset.train),
            recipe_epochs=plan.config.train.epochs,
            flops_per_image=self._flops,
            counted_flops_per_image=self._counted_flops,
            energy_source=Rapl.name if rapl else None,
            rows=rows,
            trials=tuple(self._trials.timings),
            sweep=tuple(self._sweep),
        )

    def _choose_rows(self) -> None:
        """Take every strict setting, and of each device the candidate that is fastest."""
        best = []
        for device in self.plan.devices:
            self._observer.began(f"looking for the best setting of {device}")
            best.append(self._trials.find_best(device))
        strict = strict_settings(self.plan)
        for setting in [*strict, *(one for one in best if one and one not in strict)]:
            training = self.plan.training(setting, self.plan.images)
            meter = find_meter(training.device)
            self._lanes.append(Lane(training, setting in strict, setting in best, meter))

    def _advance(self, step_seconds: float) -> OnStep:
        advanced = self._observer.advanced
        return lambda state: advanced(step_seconds)

    def _warm_up(self) -> None:
        for lane in self._lanes:
            training = lane.training
            self._observer.began(f"warming up {training.setting.label}")
            with training.computing():
                first = training.shortened(WARMUP_STEPS)
                lane.warmup_seconds = time_steps(*first.begin(), self._timer)

    def _estimate(self) -> float:
        rows = sum(lane.step_seconds * lane.training.steps for lane in self._lanes)
        parts = sum(lane.step_seconds * self._parts_steps(lane) for lane in self._lanes)
        cold = sum(
            lane.step_seconds * lane.training.steps + _COLD_OVERHEAD for lane in self._headline()
        )
        points = sweep_points(self.plan, self._headline())
        sweep = sum(point.seconds_expected for point in points)
        return self.plan.repeats * rows + parts + cold + sweep

    def _repeat(self, lane: Lane) -> None:
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
        lane.joules.append(joules)
        lane.seconds.append(seconds)  # last: only its seconds make a repeat count

    def _observe_clocks(self) -> None:
        """Read the accelerators' clocks while they are warm."""
        devices = [one for one in self.plan.devices if one.type != "cpu"]
        now = tuple(describe_accelerator(one) for one in devices)
        self._machine = self._machine.model_copy(update={"accelerators": now})

    def _parts_steps(self, lane: Lane) -> int:
        return max(4, min(_PARTS_STEPS, lane.training.steps))

    def _explain(self) -> None:
        """Split each row's step into its parts, and find what its device can do at most."""
        for lane in self._lanes:
            training, setting = lane.training, lane.training.setting
            self._observer.began(f"splitting the step of {setting.label}")
            steps = self._parts_steps(lane)
            with training.computing():
                lane.parts = time_parts(*training.shortened(steps).begin(), self._timer)
                lane.peak = measure_peak(training.device, setting.precision, self._timer)
            self._observer.advanced(lane.step_seconds * steps)

    def _headline(self) -> list[Lane]:
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
