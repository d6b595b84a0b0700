"""Run a comparison: choose rows, warm up, repeat, profile; an interrupt keeps what is done."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

import torch

from vggnet.compare.full_trainings import FullTrainings
from vggnet.compare.hardware import (
    Meter,
    Rapl,
    count_flops_per_image,
    describe_accelerator,
    describe_machine,
    find_meter,
    flops_per_image,
    measure_peak,
    read_clock,
)
from vggnet.compare.measure import (
    MAX_WARMUP_STEPS,
    ColdStartError,
    Timer,
    free_memory,
    has_settled,
    time_cold_start,
    time_fit,
    time_parts,
    time_steps,
)
from vggnet.compare.plan import ComparisonPlan, Observer, strict_settings
from vggnet.compare.result import Result, Setting, SweepPoint, printable
from vggnet.compare.trials import Lane, Trials
from vggnet.config import Config
from vggnet.errors import OutOfMemoryError

_PARTS_STEPS = 40
"""Upper limit; half of the steps are split, so medians are over 20."""
_COLD_OVERHEAD = 8.0
"""Seconds of imports, evaluation and files, for the time estimate only."""


class Comparison:
    """One machine's comparison. `run` may be interrupted; `result` returns what is done.

    Args:
        plan: What to compare.
        observer: Receives progress and warnings.
        timer: Clock and synchronization.
    """

    def __init__(
        self, plan: ComparisonPlan, observer: Observer | None = None, timer: Timer | None = None
    ) -> None:
        self.plan = plan
        self._observer = observer or Observer()
        self._timer = timer or Timer()
        self._machine = describe_machine(plan.devices)
        # Counted first: the counter needs gradients, and Ctrl-C inside torch.no_grad can
        # leave them switched off.
        self._flops = flops_per_image(plan.config.model)
        self._counted_flops = count_flops_per_image(plan.config.model)
        self._lanes: list[Lane] = []
        self._trials = Trials(plan, self._observer, self._timer)
        self._meters: dict[torch.device, Meter | None] = {}
        self._sweep: list[SweepPoint] = []
        self._full = (
            FullTrainings(plan, plan.goal, self._observer, self._timer) if plan.goal else None
        )
        self._complete = False

    def run(self) -> None:
        """Measure everything in the plan.

        Raises:
            OutOfMemoryError: The device's memory is too small for every row.
            TrainingDivergedError: The recipe's loss is not finite.
        """
        self._choose_rows()
        self._warm_up()
        self._observer.expected(self._estimate())
        for repeat in range(self.plan.repeats):
            self._observer.began(f"repeat {repeat + 1} of {self.plan.repeats}")
            # Alternate the order, so that a drift of the machine's speed favors no row.
            for lane in self._lanes[:: 1 if repeat % 2 == 0 else -1]:
                with self._computing(lane):
                    self._repeat(lane)
        self._observe_clocks()
        if self._full:
            self._full.run(self._meters, self._expect)
        self._profile()
        self._start_cold()
        if self.plan.sweep:
            for point in self._trials.sweep(self._headline()):
                self._sweep.append(point)
        self._complete = True

    def result(self) -> Result | None:
        """Return the measurements; None before the first row has a repeat."""
        rows = tuple(lane.row() for lane in self._lanes if lane.measured)
        if not rows:
            return None
        plan = self.plan
        rapl = any(lane.meter for lane in self._lanes if lane.workload.setting.kind == "cpu")
        return Result(
            complete=self._complete,
            created=datetime.now().astimezone().isoformat(timespec="seconds"),
            command=plan.command,
            options=plan.options,
            machine=self._machine,
            config=self._publish(plan.config),
            dataset_sha256=plan.dataset.sha256,
            images_per_epoch=len(plan.dataset.train),
            recipe_epochs=plan.config.train.epochs,
            flops_per_image=self._flops,
            counted_flops_per_image=self._counted_flops,
            energy_source=Rapl.name if rapl else None,
            rows=rows,
            trials=tuple(self._trials.timings),
            sweep=tuple(self._sweep),
            to_accuracy=self._full.result(self._publish) if self._full else None,
        )

    def _choose_rows(self) -> None:
        """Take every strict setting and each device's fastest candidate."""
        best = []
        for device in self.plan.devices:
            self._observer.began(f"finding the best setting for {device}")
            best.append(self._trials.find_best(device))
            self._meters[device] = find_meter(device)
        strict = [one for device in self.plan.devices for one in strict_settings(self.plan, device)]
        for setting in [*strict, *(one for one in best if one and one not in strict)]:
            workload = self.plan.workload(setting, self.plan.images)
            meter = self._meters[workload.device]
            self._lanes.append(Lane(workload, setting in strict, setting in best, meter))

    @contextmanager
    def _computing(self, lane: Lane) -> Iterator[None]:
        """Compute in a lane's setting; if the memory is too small, go on without it.

        Raises:
            OutOfMemoryError: It is the last lane.
        """
        try:
            with lane.workload.computing():
                yield
        except OutOfMemoryError as error:
            what = "measured only in part" if lane.measured else "left out"
            self._observer.warned(f"{lane.workload.setting.label} {what}: {error}")
            free_memory(lane.workload.device)
            if not lane.measured:
                self._lanes.remove(lane)
            if not self._lanes:
                raise

    def _warm_up(self) -> None:
        for lane in self._lanes.copy():
            self._observer.began(f"warming up {lane.workload.setting.label}")
            with self._computing(lane):
                first = lane.workload.shortened(MAX_WARMUP_STEPS)
                lane.warmup_seconds = time_steps(
                    *first.begin(),
                    self._timer,
                    lambda seconds: has_settled(seconds, 0.3 * self.plan.min_seconds),
                )
                lane.passes = lane.workload.passes(lane.step_seconds, self.plan.min_seconds)

    def _estimate(self) -> float:
        """Estimate the seconds of everything after the warm-up."""
        repeats = sum(lane.step_seconds * lane.workload.steps * lane.passes for lane in self._lanes)
        parts = sum(lane.step_seconds * self._parts_steps(lane) for lane in self._lanes)
        cold = sum(self._cold_seconds(lane) for lane in self._headline())
        sweep = self._trials.sweep_seconds(self._headline())
        full = self._full.estimate(self._expect) if self._full else 0.0
        return self.plan.repeats * repeats + parts + cold + sweep + full

    def _repeat(self, lane: Lane) -> None:
        workload, step_seconds = lane.workload, lane.step_seconds
        state, batches = workload.begin()
        states = [state, *(workload.build_state() for _ in range(lane.passes - 1))]
        before = lane.meter.read() if lane.meter else 0.0
        seconds, losses = time_fit(
            states, batches, self._timer, lambda state: self._observer.advanced(step_seconds)
        )
        joules = lane.meter.read() - before if lane.meter else 0.0
        lane.clocks.append(read_clock(workload.device))
        if not lane.test_images:
            found = workload.evaluate(state)
            wrong = (found.predictions != found.labels).nonzero()[0]
            lane.mistakes, lane.test_images = wrong.tolist(), found.count
            lane.step_losses = losses
        lane.joules.append(joules / lane.passes)
        lane.seconds.append(seconds)  # last: see Lane.row

    def _observe_clocks(self) -> None:
        """Read the accelerators' clock rates while they are warm."""
        devices = [one for one in self.plan.devices if one.type != "cpu"]
        now = tuple(describe_accelerator(one) for one in devices)
        self._machine = self._machine.model_copy(update={"accelerators": now})

    def _expect(self, setting: Setting, config: Config) -> float:
        """Estimate the duration of a complete training from the trials and warm-ups."""
        rates = [
            one.images_per_second[0]
            for one in self._trials.timings
            if (one.setting.device, one.setting.threads, one.setting.kernels)
            == (setting.device, setting.threads, setting.kernels)
        ] or [
            lane.workload.setting.global_batch_size / lane.step_seconds
            for lane in self._lanes
            if lane.workload.setting.device == setting.device
        ]
        images = config.train.epochs * len(self.plan.dataset.train)
        return images / max(rates, default=1e3) + _COLD_OVERHEAD

    def _publish(self, config: Config) -> Config:
        """Remove the folder of the data, which is private to this machine."""
        name = printable(self.plan.dataset.name)
        data = config.data.model_copy(update={"data_dir": None, "dataset": name})
        return config.model_copy(update={"data": data})

    def _parts_steps(self, lane: Lane) -> int:
        return max(4, min(_PARTS_STEPS, lane.workload.steps))

    def _profile(self) -> None:
        """Split each row's step into its parts, and measure its device's peak."""
        for lane in self._lanes:
            workload, setting = lane.workload, lane.workload.setting
            self._observer.began(f"profiling a step: {setting.label}")
            steps = self._parts_steps(lane)
            with self._computing(lane):
                lane.parts = time_parts(*workload.shortened(steps).begin(), self._timer)
                lane.peak = measure_peak(workload.device, setting.precision, self._timer)
            self._observer.advanced(lane.step_seconds * steps)

    def _headline(self) -> list[Lane]:
        """Return the rows that conclusions use: each device's fastest strict and best row.

        With a single device, also the strict row with the fewest threads.
        """
        chosen = [lane for lane in self._lanes if lane.best]
        for device in self.plan.devices:
            strict = [one for one in self._lanes if one.strict and one.workload.device == device]
            chosen += sorted(strict, key=lambda one: one.step_seconds)[:1]
            if len(self.plan.devices) == 1:
                chosen += strict[:1]
        return [lane for lane in self._lanes if any(lane is one for one in chosen)]

    def _start_cold(self) -> None:
        for lane in self._headline():
            label = lane.workload.setting.label
            self._observer.began(f"cold start of vggnet train: {label}")
            try:
                lane.cold, _ = time_cold_start(lane.workload.settings(), self._timer)
            except ColdStartError as error:
                self._observer.warned(f"cold start failed for {label}: {error}")
            self._observer.advanced(self._cold_seconds(lane))

    def _cold_seconds(self, lane: Lane) -> float:
        return lane.step_seconds * lane.workload.steps + _COLD_OVERHEAD
