"""When to save a checkpoint, when to stop, and what a checkpoint records about its run."""

from __future__ import annotations

import math
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from typing import Annotated, Any, ClassVar

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from vggnet.config import Config
from vggnet.engine.evaluate import Score
from vggnet.engine.fit import EpochResult
from vggnet.errors import ConfigError

_SECONDS = 30.0
"""Default time between two checkpoints."""

_MAX_COST = 0.01
"""Fraction of the time that checkpoints may take by default; slow ones become rarer."""

_EPOCHS = 40
"""Checkpoints after epochs that a run has at most; few images make hundreds of short epochs."""

SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")
"""Signals that stop a run after the current step; Windows has no SIGHUP."""

_PER_STEP = ("step_losses", "step_accuracies")


class CheckpointSchedule:
    """Decides when a checkpoint is due.

    Args:
        every: Steps ("10") or seconds ("30s"). None: every 30 s, or longer to stay below 1 %
            of the time.

    Raises:
        ConfigError: `every` is neither.
    """

    def __init__(self, every: str | None) -> None:
        pattern = r"([0-9]{1,9})|([0-9]{1,9}(?:\.[0-9]{1,9})?)s"
        found = re.fullmatch(pattern, f"{_SECONDS}s" if every is None else every)
        self._steps = int(found[1]) if found and found[1] else 0
        self._interval = float(found[2]) if found and found[2] else math.inf
        if not self._steps and not 0 < self._interval < math.inf:
            shown = every if every is None or len(every) < 20 else f"{every[:20]}…"
            raise ConfigError(
                f"--checkpoint-every {shown}: give a number of steps, 10, or of seconds, 30s"
            )
        self._adapts = every is None
        self.start_from(0)

    def start_from(self, step: int) -> None:
        """Restart the interval at `step`."""
        self._last_step, self._last_time, self._requested = step, time.perf_counter(), False

    def due_by_steps(self, step: int) -> bool:
        """Whether enough steps were taken; the same on every process."""
        return bool(self._steps) and step - self._last_step >= self._steps

    def due_after_epoch(self, step: int, total: int) -> bool:
        """Whether the epoch that ends is worth a checkpoint: a fortieth of the run, or more."""
        return step - self._last_step >= total / _EPOCHS

    def due_by_time(self) -> bool:
        """Whether the interval has passed on this process's clock; True once per checkpoint."""
        if self._requested or time.perf_counter() - self._last_time < self._interval:
            return False
        self._requested = True
        return True

    def saved(self, step: int, seconds: float) -> None:
        """Restart the interval after a checkpoint that took `seconds`."""
        self.start_from(step)
        if self._adapts:
            self._interval = max(_SECONDS, seconds / _MAX_COST)


@contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """Turn SIGINT, SIGTERM and SIGHUP into a request to stop, which the yielded function reads.

    A second signal of the same kind acts at once. A signal that the parent process told this
    one to ignore, as `nohup` does with SIGHUP, stays ignored. Only Python's main thread
    receives signals; in other threads nothing changes.
    """
    requested = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield requested.is_set
        return
    numbers = [getattr(signal, name) for name in SIGNALS if hasattr(signal, name)]
    handlers = {number: signal.getsignal(number) for number in numbers}
    before = {k: v for k, v in handlers.items() if v not in (signal.SIG_IGN, None)}
    terminals = [stream for stream in (0, 1, 2) if os.isatty(stream)]

    def request(number: int, frame: object) -> None:
        requested.set()
        signal.signal(number, signal.default_int_handler)
        if number == getattr(signal, "SIGHUP", None):
            _leave(terminals)

    for number in before:
        signal.signal(number, request)
    try:
        yield requested.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave(terminals: list[int]) -> None:
    """Send output nowhere: writing to a terminal that was closed would end the run."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in terminals:
        os.dup2(nowhere, stream)
    os.close(nowhere)


class _Record(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, allow_inf_nan=False)


_Count = Annotated[int, Field(ge=0, le=2**53)]
_Amount = Annotated[float, Field(ge=0)]


class EpochRecord(_Record):
    """An `EpochResult` without its figures per step, and the validation score."""

    epoch: _Amount
    step: _Count
    images: _Count
    loss: _Amount
    accuracy: _Amount
    lr: _Amount
    seconds: Annotated[float, Field(gt=0)]
    validation: Score | None


class Origin(_Record):
    """The trained model that a run started from."""

    name: str
    """Of its file or folder."""
    sha256: str


class CheckpointRecord(_Record):
    """The plain values of a checkpoint. The first four are those of `Snapshot`."""

    step: _Count
    seconds: _Amount
    elapsed: _Amount = 0.0
    scaler: dict[str, int | float]
    config: Config
    dataset_sha256: str
    circumstances: dict[str, str | int | None]
    """What the last bits of the result depend on besides the configuration."""
    output: str
    """The model file."""
    init: Origin | None = None
    pretrained: tuple[str, ...] = ()
    """Names of the parameters that came from `init`."""
    epochs: list[EpochRecord]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint: the tensors of a `Snapshot`, the history, and valid plain values."""

    tensors: dict[str, Tensor]
    record: CheckpointRecord


def epochs_since_best(validations: Sequence[Score | None]) -> int:
    """Return how many epochs ago the validation loss was lowest; 0 without validation."""
    losses = [score.loss for score in validations if score]
    return len(losses) - 1 - losses.index(min(losses)) if losses else 0


@dataclass
class History:
    """The results of all epochs so far, and their scores on the validation set, if any."""

    epochs: list[EpochResult] = field(default_factory=list)
    validations: list[Score | None] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)
    """Weights after the epoch with the lowest validation loss, if they are to be kept."""

    def to_checkpoint(self) -> tuple[Tensor, list[dict[str, Any]]]:
        """Return loss and accuracy of all steps, float64 (steps, 2), and a row per epoch."""
        steps = [
            torch.tensor([getattr(one, name) for name in _PER_STEP], dtype=torch.float64).T
            for one in self.epochs
        ]
        rows = [
            {
                **{f.name: getattr(one, f.name) for f in fields(one) if f.name not in _PER_STEP},
                "validation": score and asdict(score),
            }
            for one, score in zip(self.epochs, self.validations, strict=True)
        ]
        return torch.cat([torch.zeros(0, 2, dtype=torch.float64), *steps]), rows

    @classmethod
    def from_checkpoint(cls, steps: Tensor, rows: list[EpochRecord]) -> History:
        """Read what `to_checkpoint` returned.

        Raises:
            ValueError: The two do not belong together.
        """
        history, first = cls(), 0
        ends = [row.step for row in rows]
        if steps.shape != (max(ends, default=0), 2) or ends != sorted(set(ends)):
            raise ValueError("it lacks the history of its epochs")
        for row in rows:
            losses, accuracies = steps[first : row.step].T.tolist()
            values = row.model_dump(exclude={"validation"})
            history.epochs.append(
                EpochResult(**values, step_losses=losses, step_accuracies=accuracies)
            )
            history.validations.append(row.validation)
            first = row.step
        return history
