"""Time a training: the very `fit` that `vggnet train` runs, on one device in one setting.

The clock and the wait for the device are parameters, so that tests can put a clock and an
asynchronous device in their place that are known to the tick.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch

from vggnet.compare.result import PARTS, Parts, Setting
from vggnet.config import Config
from vggnet.data.batches import Batches
from vggnet.data.dataset import Dataset
from vggnet.data.preprocessing import Preprocessing
from vggnet.engine.device import (
    computing,
    own_random_numbers,
    synchronize,
    usable_cores,
)
from vggnet.engine.evaluate import Evaluation, evaluate
from vggnet.engine.fit import TrainState, build_state, fit
from vggnet.engine.session import Session
from vggnet.inference.predict import BATCH_SIZE
from vggnet.kernels import accelerate
from vggnet.model.vgg import build_network

OnStep = Callable[[TrainState], None]


@dataclass(frozen=True)
class Timer:
    """A clock, and a way to wait until a device has done all that it was given."""

    clock: Callable[[], float] = time.perf_counter
    """Seconds from some fixed moment."""
    wait: Callable[[torch.device], None] = synchronize

    def now(self, device: torch.device) -> float:
        """Wait for the device, then read the clock."""
        self.wait(device)
        return self.clock()

    def time(self, device: torch.device, work: Callable[[], object]) -> float:
        """Return the seconds of some work, from an idle device to an idle device."""
        started = self.now(device)
        work()
        return self.now(device) - started


@dataclass(frozen=True, eq=False)  # images have no hash; one training is another than its copy
class Training:
    """A training that can be begun again from the same weights, on the same batches."""

    setting: Setting
    config: Config
    """Complete; what the setting says is replaced by it."""
    dataset: Dataset
    steps: int

    @property
    def device(self) -> torch.device:
        """Where it trains."""
        return torch.device(self.setting.device)

    @property
    def images(self) -> int:
        """Images that its steps train on; the last batch of an epoch may be short."""
        size, count = self.setting.global_batch_size, len(self.dataset.train)
        epochs, rest = divmod(self.steps, -(-count // size))
        return epochs * count + min(count, rest * size)

    def shortened(self, steps: int) -> Training:
        """Return the same training's first steps."""
        return replace(self, steps=steps)

    def settings(self) -> Config:
        """Return the whole configuration of this training, as `vggnet train` takes it."""
        setting, per_epoch = self.setting, self._steps_per_epoch()
        train = {
            "device": setting.device,
            "precision": setting.precision,
            "global_batch_size": setting.global_batch_size,
            "threads": setting.threads,
            "kernels": setting.kernels,
            "epochs": self.steps / per_epoch,
        }
        return self.config.model_copy(update={"train": self.config.train.model_copy(update=train)})

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Set threads, precision and random numbers as a run does, and set them back after."""
        threads = self.setting.threads or usable_cores()
        with computing(self.setting.precision, threads), own_random_numbers(self.device):
            torch.manual_seed(self.config.train.seed)
            yield

    def begin(self) -> tuple[TrainState, Batches]:
        """Build the initial weights and put the images on the device."""
        settings = self.settings()
        network = build_network(settings.model, settings.train.seed)
        state = build_state(network, settings.train, self.device, Session())
        return state, self.batches(settings.train.global_batch_size)

    def batches(self, size: int, test: bool = False) -> Batches:
        """Return the training or the test images on the device, in batches."""
        return Batches(
            self.dataset.test if test else self.dataset.train,
            self.device,
            Preprocessing.from_config(self.config),
            batch_size=size,
            augment=self.config.augment,
        )

    def _steps_per_epoch(self) -> int:
        return -(-len(self.dataset.train) // self.setting.global_batch_size)


def time_fit(
    state: TrainState, batches: Batches, timer: Timer, on_step: OnStep
) -> tuple[float, list[float]]:
    """Train to the end; return its seconds and the mean loss of each step's batch, nats."""
    losses: list[float] = []

    def train() -> None:
        for result in fit(state, batches, on_step):
            losses.extend(result.step_losses)

    return timer.time(state.device, train), losses


def time_steps(state: TrainState, batches: Batches, timer: Timer) -> list[float]:
    """Train to the end; return the seconds of each step, the device waited for in between."""
    marks = [timer.now(state.device)]
    for _ in fit(state, batches, lambda state: marks.append(timer.now(state.device))):
        pass
    return [after - before for before, after in itertools.pairwise(marks)]


def time_parts(state: TrainState, batches: Batches, timer: Timer) -> Parts | None:
    """Train to the end and split the steps into their parts.

    The loop is `fit` itself; hooks of torch mark where it is. Waiting after each part
    takes away what an asynchronous device overlaps, so every other step is waited for at
    its ends alone: the parts' sum above that is what the overlap saves.

    Returns:
        Medians over the steps, or None where fewer than two steps were taken in full.
    """
    marks: list[float] = []
    split: list[list[float]] = []
    whole: list[float] = []

    def mark(*_: object) -> None:
        if state.step % 2 == 0:
            marks.append(timer.now(state.device))

    def on_step(state: TrainState) -> None:
        marks.append(timer.now(state.device))
        if len(marks) == len(PARTS) + 1:
            split.append([after - before for before, after in itertools.pairwise(marks)])
        elif len(marks) == 2:
            whole.append(marks[1] - marks[0])
        marks[:] = [timer.now(state.device)]

    hooks = [
        state.replica.register_forward_pre_hook(mark),
        state.replica.register_forward_hook(mark),
        state.optimizer.register_step_pre_hook(mark),
        state.optimizer.register_step_post_hook(mark),
    ]
    marks.append(timer.now(state.device))
    try:
        for _ in fit(state, batches, on_step):
            marks[:] = [timer.now(state.device)]
    finally:
        for hook in hooks:
            hook.remove()
    if not split or not whole:
        return None
    ms = {
        f"{part}_ms": 1000 * statistics.median(column)
        for part, column in zip(PARTS, zip(*split, strict=True), strict=True)
    }
    return Parts(**ms, step_ms=1000 * statistics.median(whole))


def evaluate_weights(state: TrainState, training: Training) -> Evaluation:
    """Evaluate on the test set, outside of all timing."""
    network = accelerate(state.eval_model, state.config.kernels)
    return evaluate(network, training.batches(BATCH_SIZE, test=True), Session())
