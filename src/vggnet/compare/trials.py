"""Short runs: which setting a device is at its best in, and which cannot be had at all."""

from __future__ import annotations

import torch

from vggnet.compare.measure import Timer, Training, time_fit
from vggnet.compare.observer import Observer
from vggnet.compare.plan import Plan, candidate_settings
from vggnet.compare.result import Setting, Timing
from vggnet.engine.fit import TrainState
from vggnet.errors import DeviceError, OutOfMemoryError, TrainingDivergedError

_STEPS = 10
"""At most, of each candidate; with a tenth of a row's steps if that is less."""

_WORTH_IT = 1.05
"""A larger batch is called best where it is so much faster: it learns less from an epoch."""

_CANNOT = (DeviceError, TrainingDivergedError, OutOfMemoryError)
"""What rules a setting out, without ending the comparison."""


class Trials:
    """Try settings once each, and remember what was timed.

    Args:
        plan: What is compared.
        observer: Told of what cannot be done.
        timer: Clock and wait.
    """

    def __init__(self, plan: Plan, observer: Observer, timer: Timer) -> None:
        self.timings: list[Timing] = []
        self._plan, self._observer, self._timer = plan, observer, timer

    def attempt(self, training: Training) -> float | None:
        """Time a training once, after two steps to warm up; None where it cannot be done."""
        try:
            for some in (training.shortened(2), training):
                with some.computing():
                    state, batches = some.begin()
                    seconds, _ = time_fit(state, batches, self._timer, self._on_step)
        except _CANNOT as error:
            self._observer.warned(f"{training.setting.label} left out: {error}")
            return None
        return seconds

    def find_best(self, device: torch.device) -> Setting | None:
        """Return the fastest of a device's candidates; None where none can be done."""
        steps = max(2, min(_STEPS, self._plan.steps // 10))
        images = steps * self._plan.config.train.global_batch_size
        timings = []
        for setting in candidate_settings(self._plan, device):
            training = self._plan.training(setting, images)
            if seconds := self.attempt(training):
                timing = Timing(setting=setting, images=training.images, seconds=(seconds,))
                timings.append(timing)
        self.timings += timings
        return max(timings, key=self._worth).setting if timings else None

    def _on_step(self, state: TrainState) -> None:
        self._observer.advanced(0.0)  # its time is not part of the estimate

    def _worth(self, timing: Timing) -> float:
        rate = timing.images / timing.seconds[0]
        own = self._plan.config.train.global_batch_size
        return rate if timing.setting.global_batch_size == own else rate / _WORTH_IT
