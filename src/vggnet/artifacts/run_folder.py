"""The folder that a run leaves: settings, environment, metrics, model, images."""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import json
import os
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from vggnet.artifacts.atomic import write_file
from vggnet.artifacts.checkpoint import CheckpointFolder
from vggnet.engine.evaluate import Evaluation, Score
from vggnet.engine.fit import EpochResult
from vggnet.errors import ConfigError, OutputError

CHECKPOINTS = "checkpoints"
"""The folder of a run's checkpoints, in the run's own."""

FINISHED = "test.json"
"""The last file that a run writes: figures of the test set."""

_LAUNCH = "launch.json"


class RunFolder:
    """One run's own folder, which no other process writes to meanwhile.

    Args:
        path: The folder, which is there.
        tensorboard: Write TensorBoard events beside the tables.

    Raises:
        ConfigError: A run that goes on writes to it, or tensorboard is wanted and not
            installed.
    """

    def __init__(self, path: Path, tensorboard: bool = False) -> None:
        writer_class = _tensorboard_writer() if tensorboard else None
        self.path = path
        self.checkpoints = CheckpointFolder(path / CHECKPOINTS)
        self._lock = _lock(path)
        self._events = writer_class(str(path)) if writer_class else None

    @classmethod
    def create(
        cls, runs: Path, name: str | None, stem: str, tensorboard: bool = False, launch: str = ""
    ) -> RunFolder:
        """Make a folder anew: no run overwrites another.

        Args:
            runs: The folder of all runs; made where it is missing.
            name: The run's name, or None to make one up from `stem` and the time.
            stem: What a made-up name begins with.
            tensorboard: As above.
            launch: What torchrun calls its launch, by which `find_newest` knows it again.

        Raises:
            ConfigError: The name is taken or is no name for a folder.
            OutputError: It cannot be made.
        """
        if tensorboard:
            _tensorboard_writer()
        if name is not None and (name in ("", ".", "..") or "/" in name or "\\" in name):
            raise ConfigError(f"{name!r} is no name for a run; use letters, digits, - and _")
        folder = cls(_make(runs, name, stem), tensorboard)
        if launch:
            folder.write_json(_LAUNCH, {"launch": launch})
        return folder

    def close(self) -> None:
        """Let other processes write to the folder."""
        if self._events:
            with contextlib.suppress(OSError):  # on a full disk; `write_epochs` has told of it
                self._events.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def write_json(self, name: str, values: Mapping[str, Any]) -> None:
        """Write plain values to `name`.

        Raises:
            OutputError: The disk does not take it.
        """
        write_file(self.path / name, (json.dumps(values, indent=2) + "\n").encode())

    def write_epochs(
        self, results: Sequence[EpochResult], validations: Sequence[Evaluation | Score | None]
    ) -> None:
        """Write a row for each epoch so far to metrics.csv, and for each step to steps.csv.

        TensorBoard gets the last epoch.

        Raises:
            OutputError: The disk does not take it.
        """
        epochs = [_row(*pair) for pair in zip(results, validations, strict=True)]
        steps = [
            {"step": step, "loss": f"{loss:.6f}", "accuracy": f"{accuracy:.6f}"}
            for result in results
            for step, loss, accuracy in zip(
                range(result.step - len(result.step_losses) + 1, result.step + 1),
                result.step_losses,
                result.step_accuracies,
                strict=True,
            )
        ]
        self._write_csv("metrics.csv", epochs)
        self._write_csv("steps.csv", steps)
        if self._events:
            try:
                _write_events(self._events, epochs[-1])
            except OSError as error:
                raise OutputError(
                    f"cannot write TensorBoard's events in {self.path}: {error.strerror or error}"
                ) from None

    def _write_csv(self, name: str, rows: Sequence[dict[str, Any]]) -> None:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
        write_file(self.path / name, text.getvalue().encode())


def _write_events(events: Any, epoch: Mapping[str, Any]) -> None:
    for name, value in epoch.items():
        if value != "" and name not in ("epoch", "step"):
            events.add_scalar(name, float(value), epoch["step"])
    events.flush()


def find_newest(runs: Path, launch: str | None = None) -> Path | None:
    """Return the run that began last, of a launch of torchrun or of all; None without one."""
    marks = runs.glob("*/config.json" if launch is None else f"*/{_LAUNCH}")
    newest_first = sorted(marks, key=lambda mark: mark.stat().st_mtime_ns, reverse=True)
    for folder in (mark.parent for mark in newest_first):
        if launch is None or _read_launch(folder) == launch:
            return folder
    return None


def _read_launch(path: Path) -> str | None:
    try:
        launch: str | None = json.loads((path / _LAUNCH).read_text())["launch"]
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
                    f"{path} is there already; give the new run another --name, or go on with "
                    f"that one: --resume {path}"
                ) from None
        except OSError as error:
            raise OutputError(f"cannot make {path}: {error.strerror}") from None
    return path


def _lock(path: Path) -> int | None:
    """Hold a folder until this process ends, however it does.

    Raises:
        ConfigError: Another process holds it.
    """
    if sys.platform == "win32":
        return None
    import fcntl

    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise ConfigError(f"{path} is being trained right now, by another process") from None
    except OSError:
        pass  # a file system without locks, which only save from a mistake
    return descriptor


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


def _tensorboard_writer() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ConfigError(
            "--tensorboard needs an extra: pip install 'vggnet[tensorboard]'"
        ) from None
    return SummaryWriter
