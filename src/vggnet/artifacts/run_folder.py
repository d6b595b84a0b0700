"""The folder that a run leaves: settings, environment, metrics, model, pictures."""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from vggnet.artifacts.atomic import write_file
from vggnet.engine.evaluate import Evaluation
from vggnet.engine.fit import EpochResult
from vggnet.errors import ConfigError, OutputError


class RunFolder:
    """One run's own folder, made anew: no run overwrites another.

    Args:
        runs: The folder of all runs; made where it is missing.
        name: The run's name, or None to make one up from `stem` and the time.
        stem: What a made-up name begins with.
        tensorboard: Write TensorBoard events beside the tables.

    Raises:
        ConfigError: The name is taken or is no name for a folder, or tensorboard is wanted
            and not installed.
        OutputError: It cannot be made.
    """

    def __init__(self, runs: Path, name: str | None, stem: str, tensorboard: bool = False) -> None:
        writer_class = _tensorboard_writer() if tensorboard else None
        if name is not None and (name in ("", ".", "..") or "/" in name or "\\" in name):
            raise ConfigError(f"{name!r} is no name for a run; use letters, digits, - and _")
        base = name or f"{stem}-{datetime.now():%Y%m%d-%H%M%S}"
        for attempt in itertools.count(1):
            self.path = runs / (base if attempt == 1 else f"{base}-{attempt}")
            try:
                self.path.mkdir(parents=True)
                break
            except FileExistsError:
                if not runs.is_dir():
                    raise OutputError(f"cannot make {self.path}: {runs} is a file") from None
                if name is not None:
                    raise ConfigError(
                        f"{self.path} is there already; give the new run another --name"
                    ) from None
            except OSError as error:
                raise OutputError(f"cannot make {self.path}: {error.strerror}") from None
        self._events = writer_class(str(self.path)) if writer_class else None
        self._epochs: list[dict[str, Any]] = []
        self._steps: list[dict[str, Any]] = []

    def write_json(self, name: str, values: Mapping[str, Any]) -> None:
        """Write plain values to `name`.

        Raises:
            OutputError: The disk does not take it.
        """
        write_file(self.path / name, (json.dumps(values, indent=2) + "\n").encode())

    def write_epoch(self, result: EpochResult, validation: Evaluation | None) -> None:
        """Add an epoch to metrics.csv, and its steps to steps.csv.

        Raises:
            OutputError: The disk does not take it.
        """
        self._epochs.append(
            {
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
        )
        first = result.step - len(result.step_losses) + 1
        self._steps += [
            {"step": first + offset, "loss": f"{loss:.6f}", "accuracy": f"{accuracy:.6f}"}
            for offset, (loss, accuracy) in enumerate(
                zip(result.step_losses, result.step_accuracies, strict=True)
            )
        ]
        if self._events:
            for name, value in self._epochs[-1].items():
                if value != "" and name not in ("epoch", "step"):
                    self._events.add_scalar(name, float(value), result.step)
            self._events.flush()
        self._write_csv("metrics.csv", self._epochs)
        self._write_csv("steps.csv", self._steps)

    def _write_csv(self, name: str, rows: Sequence[dict[str, Any]]) -> None:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
        write_file(self.path / name, text.getvalue().encode())


def _tensorboard_writer() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ConfigError(
            "--tensorboard needs an extra: pip install 'vggnet[tensorboard]'"
        ) from None
    return SummaryWriter
