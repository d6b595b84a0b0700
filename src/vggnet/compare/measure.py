"""Time a training with the `fit` that `vggnet train` runs, on one device in one setting.

The clock and the device's synchronization are parameters, so that tests can pass an
asynchronous device whose timing is known exactly.
"""

from __future__ import annotations

import gc
import itertools
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from vggnet.compare.result import PARTS, ColdStart, Parts, Setting
from vggnet.config import Config
from vggnet.data.batches import Batches
from vggnet.data.dataset import Dataset
from vggnet.data.preprocessing import Preprocessing
from vggnet.engine.device import computing, own_random_numbers, synchronize
from vggnet.engine.evaluate import Evaluation, evaluate
from vggnet.engine.fit import EpochResult, TrainState, build_state, fit
from vggnet.engine.session import Session
from vggnet.inference.predict import BATCH_SIZE
from vggnet.kernels import accelerate
from vggnet.model.vgg import build_network

OnStep = Callable[[TrainState], None]

MAX_WARMUP_STEPS = 1000


class _EnoughError(Exception):
    """Ends a training early."""


class ColdStartError(Exception):
    """`vggnet train` failed; the message is its last line."""


@dataclass(frozen=True)
class Timer:
    """A clock, and a function that waits until a device is idle."""

    clock: Callable[[], float] = time.perf_counter
    """Seconds since some fixed moment."""
    wait: Callable[[torch.device], None] = synchronize

    def now(self, device: torch.device) -> float:
        """Wait for the device, then read the clock."""
        self.wait(device)
        return self.clock()

    def time(self, device: torch.device, work: Callable[[], object]) -> float:
        """Return the seconds that some work takes, with the device idle before and after."""
        started = self.now(device)
        work()
        return self.now(device) - started


@dataclass(frozen=True, eq=False)  # images have no hash
class Workload:
    """A training that can be repeated from the same weights on the same batches."""

    setting: Setting
    config: Config
    """Complete; the setting overrides it."""
    dataset: Dataset
    steps: int

    @property
    def device(self) -> torch.device:
        """The device that it trains on."""
        return torch.device(self.setting.device)

    @property
    def images(self) -> int:
        """Images in all steps; the last batch of an epoch may be short."""
        size, count = self.setting.global_batch_size, len(self.dataset.train)
        epochs, rest = divmod(self.steps, -(-count // size))
        return epochs * count + min(count, rest * size)

    def shortened(self, steps: int) -> Workload:
        """Return the same training with fewer steps."""
        return replace(self, steps=steps)

    def settings(self) -> Config:
        """Return the complete configuration for `vggnet train`, for exactly these steps."""
        setting = self.setting
        per_epoch = -(-len(self.dataset.train) // setting.global_batch_size)
        train = {**setting.model_dump(), "epochs": self.steps / per_epoch, "min_steps": 0}
        return self.config.model_copy(update={"train": self.config.train.model_copy(update=train)})

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Set threads, precision and random state as a run does; restore them afterwards."""
        setting = self.setting
        with computing(setting.precision, setting.threads), own_random_numbers(self.device):
            torch.manual_seed(self.config.train.seed)
            yield

    def begin(self) -> tuple[TrainState, Batches]:
        """Build the initial state and copy the images to the device."""
        return self.build_state(), self._batches(self.setting.global_batch_size)

    def build_state(self) -> TrainState:
        """Build the initial state."""
        settings = self.settings()
        network = build_network(settings.model, settings.train.seed)
        return build_state(network, settings.train, self.device, Session())

    def passes(self, step_seconds: float, minimum: float) -> int:
        """Return how often to train for at least `minimum` seconds, with a margin of 20 %."""
        return max(1, math.ceil(1.2 * minimum / (step_seconds * self.steps)))

    def evaluate(self, state: TrainState) -> Evaluation:
        """Evaluate the weights on the test set; never part of a timed region."""
        network = accelerate(state.eval_model, state.config.kernels)
        return evaluate(network, self._batches(BATCH_SIZE, test=True), Session())

    def _batches(self, size: int, test: bool = False) -> Batches:
        return Batches(
            self.dataset.test if test else self.dataset.train,
            self.device,
            Preprocessing.from_config(self.config),
            batch_size=size,
            augment=self.config.augment,
        )


def time_fit(
    states: Sequence[TrainState], batches: Batches, timer: Timer, on_step: OnStep
) -> tuple[float, list[float]]:
    """Train each state to its end, one directly after the other.

    Returns:
        The seconds per state, and the mean loss of each step's batch of the first state, nats.
    """
    results: list[EpochResult] = []

    def train() -> None:
        for state in states:
            results.extend(fit(state, batches, on_step))

    seconds = timer.time(states[0].device, train) / len(states)
    losses = [loss for result in results for loss in result.step_losses]
    return seconds, losses[: states[0].step]


def free_memory(device: torch.device) -> None:
    """Return unused memory to the device, after a training that did not fit."""
    gc.collect()
    if device.type != "cpu":
        getattr(torch, device.type).empty_cache()


def time_steps(
    state: TrainState,
    batches: Batches,
    timer: Timer,
    enough: Callable[[list[float]], bool] = lambda seconds: False,
) -> list[float]:
    """Train to the end; return the seconds of each step, synchronizing after each.

    Args:
        state: Advanced in place.
        batches: The training images.
        timer: Clock and synchronization.
        enough: Called with the seconds so far after each step; True ends the training.
    """
    seconds: list[float] = []
    mark = timer.now(state.device)

    def on_step(state: TrainState) -> None:
        nonlocal mark
        now = timer.now(state.device)
        seconds.append(now - mark)
        if enough(seconds):
            raise _EnoughError
        mark = timer.now(state.device)

    with suppress(_EnoughError):
        for _ in fit(state, batches, on_step):
            pass
    return seconds


def has_settled(seconds: Sequence[float], minimum: float) -> bool:
    """Whether warm-up steps have settled: the last two thirds agree within 5 %.

    At least 6 steps and `minimum` seconds, since a GPU's clock needs some time to rise; at most
    5 s or 1000 steps.
    """
    if len(seconds) < 6 or sum(seconds) < minimum:
        return len(seconds) == MAX_WARMUP_STEPS
    if sum(seconds) > 5 or len(seconds) == MAX_WARMUP_STEPS:
        return True
    third = len(seconds) // 3
    before, last = seconds[-2 * third : -third], seconds[-third:]
    return abs(statistics.median(last) / statistics.median(before) - 1) <= 0.05


def time_parts(state: TrainState, batches: Batches, timer: Timer) -> Parts | None:
    """Train to the end and split the steps into their parts.

    torch's hooks mark the parts of `fit` itself. A synchronization after each part prevents
    overlap, so every other step is synchronized only at its ends: the difference between the
    sum of the parts and such a whole step is what overlap saves.

    Returns:
        Medians over the steps, or None after fewer than two complete steps.
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


def time_cold_start(settings: Config, timer: Timer) -> tuple[ColdStart, float]:
    """Time `vggnet train` in a fresh process, and delete the files that it writes.

    Returns:
        The times, and the test accuracy from 0 to 1.

    Raises:
        ColdStartError: It failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "config.json")
        config.write_text(settings.model_dump_json(), encoding="utf-8")
        command = [sys.executable, "-m", "vggnet", "train", "--json", "--config", str(config)]
        command += ["--output", str(Path(folder, "model.pth")), "--runs", folder]
        done: list[subprocess.CompletedProcess[str]] = []

        def run() -> None:
            done.append(subprocess.run(command, capture_output=True, text=True, check=False))

        seconds = timer.time(torch.device("cpu"), run)
    if done[0].returncode:
        lines = done[0].stderr.strip().splitlines() or ["no error message"]
        raise ColdStartError(lines[-1])
    summary: dict[str, Any] = json.loads(done[0].stdout)
    trained = sum(epoch["seconds"] for epoch in summary["epochs"])
    return ColdStart(seconds=seconds, training_seconds=trained), summary["test"]["accuracy"]
