"""The folder of a run: settings, environment, metrics, model, plots, checkpoints."""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from vggnet.artifacts.atomic import write_file
from vggnet.artifacts.checkpoint import CheckpointFolder
from vggnet.data.files import read_text
from vggnet.engine.evaluate import Evaluation, Score
from vggnet.engine.fit import EpochResult
from vggnet.errors import ConfigError, OutputError

CHECKPOINTS = "checkpoints"

FINISHED = "test.json"
"""The last file that a run writes: its result on the test set."""

MODEL = "model.safetensors"

_CONFIG, _LAUNCH = "config.json", "launch.json"


class RunFolder:
    """The folder of one run, locked against other processes.

    Args:
        path: An existing folder.
        tensorboard: Write TensorBoard events too.

    Raises:
        ConfigError: Another process is writing to it, or tensorboard is not installed.
    """

    def __init__(self, path: Path, tensorboard: bool = False) -> None:
        writer_class = _tensorboard_writer() if tensorboard else None
        self.path = path
        self.checkpoints = CheckpointFolder(path / CHECKPOINTS)
        self._lock = _lock(path)
        self._documents: dict[str, Mapping[str, Any]] = {}
        self._events = writer_class(str(path)) if writer_class else None

    @classmethod
    def create(
        cls, runs: Path, name: str | None, stem: str, tensorboard: bool = False, launch: str = ""
    ) -> Self:
        """Make a new folder; an existing run is never overwritten.

        Args:
            runs: The parent folder, which is made if necessary.
            name: Name of the run; None: `stem` and the time.
            stem: Start of the default name.
            tensorboard: As above.
            launch: torchrun's name for this launch, for `find_newest`.

        Raises:
            ConfigError: The name is taken or invalid.
            OutputError: The folder cannot be made.
        """
        if tensorboard:
            _tensorboard_writer()
        if name is not None and (name in ("", ".", "..") or set(name) & set("/\\\0")):
            raise ConfigError(f"--name {name!r} is not a folder name; use letters, digits, - and _")
        folder = cls(_make(runs, name, stem), tensorboard)
        if launch:
            folder.write_json(_LAUNCH, {"launch": launch})
        return folder

    @classmethod
    def reopen(cls, path: Path, tensorboard: bool = False) -> Self:
        """Open the folder of a run that continues, and mark it as unfinished.

        Raises:
            ConfigError: As above.
            OutputError: The folder cannot be changed.
        """
        folder = cls(path, tensorboard)
        try:
            (path / FINISHED).unlink(missing_ok=True)
        except OSError as error:
            folder.close()
            raise OutputError(f"cannot change {path}: {error.strerror}") from None
        return folder

    def close(self) -> None:
        """Release the lock, and close the TensorBoard file."""
        if self._events:
            with contextlib.suppress(OSError):  # a full disk, which `write_epochs` has reported
                self._events.close()
        if self._lock is not None:
            os.close(self._lock)

    def is_there(self) -> bool:
        """Whether the folder still exists where it was."""
        return os.path.isdir(self.path)  # noqa: PTH112 (False for every error)

    def restore(self) -> str | None:
        """Make the folder again if it was moved or deleted, and return a warning then.

        Raises:
            OutputError: It cannot be made.
        """
        if self.is_there():
            return None
        try:
            self.path.mkdir(parents=True)
            lock = _lock(self.path)
        except OSError as error:
            raise OutputError(f"cannot make {self.path} again: {error.strerror}") from None
        if self._lock is not None:
            os.close(self._lock)
        self._lock = lock
        self.checkpoints = CheckpointFolder(self.path / CHECKPOINTS)
        for name, values in self._documents.items():
            self.write_json(name, values)
        return f"{self.path} was moved or deleted during the run; continuing in a new folder there"

    def write_json(self, name: str, values: Mapping[str, Any]) -> None:
        """Write a JSON file.

        Raises:
            OutputError: It cannot be written.
        """
        self._documents[name] = values
        write_file(self.path / name, (json.dumps(values, indent=2) + "\n").encode())

    def write_epochs(
        self, results: Sequence[EpochResult], validations: Sequence[Evaluation | Score | None]
    ) -> None:
        """Write the tables of all epochs and steps so far.

        Raises:
            OutputError: They cannot be written.
        """
        epochs = [_row(*pair) for pair in zip(results, validations, strict=True)]
        self._write_csv("metrics.csv", list(epochs[0]), (row.values() for row in epochs))
        self._write_csv("steps.csv", ("step", "loss", "accuracy"), _rows_of_steps(results))
        if self._events:
            try:
                _write_events(self._events, epochs[-1])
            except OSError as error:
                raise OutputError(
                    f"cannot write TensorBoard events in {self.path}: {error.strerror or error}"
                ) from None

    def _write_csv(
        self, name: str, columns: Sequence[str], rows: Iterable[Iterable[object]]
    ) -> None:
        text = io.StringIO(newline="")
        csv.writer(text).writerows([columns])
        csv.writer(text).writerows(rows)
        write_file(self.path / name, text.getvalue().encode())


def find_newest(runs: Path, launch: str | None = None) -> Path | None:
    """Return the run that started or resumed last, of all or of one launch of torchrun.

    A time in the future says nothing about the order, so such runs come after all others.

    Raises:
        OSError: `runs` cannot be read.
    """
    times: list[tuple[bool, int, Path]] = []
    now = time.time_ns()
    try:
        folders = list(runs.iterdir())
    except FileNotFoundError:
        return None
    for folder in folders:
        with contextlib.suppress(OSError):
            changed = (folder / (_CONFIG if launch is None else _LAUNCH)).stat().st_mtime_ns
            if launch is None or _read_launch(folder) == launch:
                times.append((changed <= now, changed, folder))
    return max(times, default=(False, 0, None))[-1]


def _read_launch(path: Path) -> str | None:
    try:
        launch: str | None = json.loads(read_text(path / _LAUNCH))["launch"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return launch


def _make(runs: Path, name: str | None, stem: str) -> Path:
    base = name or f"{stem}-{datetime.now():%Y%m%d-%H%M%S}"
    for attempt in itertools.count(1):
        path = runs / (base if attempt == 1 else f"{base}-{attempt}")
        try:
            path.mkdir(parents=True)
            break
        except FileExistsError:
            if not runs.is_dir():
                raise OutputError(f"cannot make {path}: {runs} is a file") from None
            if name is not None:
                raise ConfigError(
                    f"{path} exists; choose another --name, or resume it: --resume {path}"
                ) from None
        except OSError as error:
            raise OutputError(f"cannot make {path}: {error.strerror}") from None
    return path


def _lock(path: Path) -> int | None:
    """Lock a folder until this process ends.

    Raises:
        ConfigError: Another process has locked it.
    """
    if sys.platform == "win32":
        return None
    import fcntl

    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise ConfigError(f"{path} is in use: another process is training in it") from None
    except OSError:
        pass  # a file system without locks, which only protect from a mistake
    return descriptor


def _rows_of_steps(results: Sequence[EpochResult]) -> Iterator[tuple[object, ...]]:
    """Yield number, loss and accuracy of each step: a list of a million takes 0.3 GB."""
    for result in results:
        first = result.step - len(result.step_losses) + 1
        pairs = zip(result.step_losses, result.step_accuracies, strict=True)
        for step, (loss, accuracy) in enumerate(pairs, first):
            yield step, f"{loss:.6f}", f"{accuracy:.6f}"


def _row(result: EpochResult, validation: Evaluation | Score | None) -> dict[str, Any]:
    return {
        "epoch": f"{result.epoch:.6g}",
        "step": result.step,
        "train_loss": f"{result.loss:.6f}",
        "train_accuracy": f"{result.accuracy:.6f}",
        "validation_loss": "" if validation is None else f"{validation.loss:.6f}",
        "validation_accuracy": "" if validation is None else f"{validation.accuracy:.6f}",
        "lr": f"{result.lr:.6g}",
        "seconds": f"{result.seconds:.3f}",
        "images_per_second": f"{result.images / result.seconds:.1f}",
    }


def _write_events(events: Any, epoch: Mapping[str, Any]) -> None:
    for name, value in epoch.items():
        if value != "" and name not in ("epoch", "step"):
            events.add_scalar(name, float(value), epoch["step"])
    events.flush()


def _tensorboard_writer() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ConfigError(
            "--tensorboard needs an extra: pip install 'vggnet[tensorboard]'"
        ) from None
    return SummaryWriter
