"""What `vggnet train` prints: a progress bar on a terminal, lines in a pipe, only on rank 0."""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import asdict
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from vggnet.artifacts.summary import summarize
from vggnet.cli.terminal import printable_lines, warn
from vggnet.data.collection import list_names
from vggnet.engine.device import name_device
from vggnet.engine.evaluate import Evaluation
from vggnet.engine.fit import EpochResult
from vggnet.run import Plan, Reporter, TrainResult

_LINES = 40
"""Lines about epochs that a run prints at most."""


class PatientConsole(Console):
    """Survives the end of the reader of its pipe."""

    def on_broken_pipe(self) -> None:
        """Stop printing, but let the training continue: its results are files."""
        with contextlib.suppress(SystemExit):
            super().on_broken_pipe()


class Display:
    """A context manager that prints warnings to standard error, and nothing else."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def warned(self, message: str) -> None:
        """Print a warning to standard error."""
        warn(message)


class BarDisplay(Display):
    """A console with a progress bar, which is shown only on a terminal.

    The caller's thread redraws the bar: a thread of its own would need the GIL while steps
    run or are timed.

    Args:
        console: Where to print.
        columns: The columns of the bar.
        redraw: Minimum seconds between redraws; each takes 0.3 ms.
    """

    def __init__(self, console: Console, *columns: ProgressColumn, redraw: float) -> None:
        self._console, self._redraw = console, redraw
        self._progress = Progress(
            *columns,
            console=console,
            transient=True,
            auto_refresh=False,
            disable=console.quiet or not console.is_terminal,
        )
        self._task = self._progress.add_task("", total=None, rate="")
        self._drawn = 0.0

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def _due(self) -> bool:
        """Whether it is time to redraw the bar."""
        now = time.perf_counter()
        if self._progress.disable or now - self._drawn < self._redraw:
            return False
        self._drawn = now
        return True


class TerminalReporter(BarDisplay, Reporter):
    """Prints the progress of a training."""

    def __init__(self) -> None:
        super().__init__(
            PatientConsole(highlight=False, soft_wrap=True),
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("steps · {task.fields[rate]}"),
            TimeRemainingColumn(),
            redraw=0.1,
        )
        self._silent = False

    def started(self, plan: Plan) -> None:
        """Print what is trained on what, and start the bar."""
        self._silent = not plan.session.is_main
        self._batch = plan.config.train.global_batch_size
        self._first_step = plan.first_step
        self._classes, self._train = plan.dataset.classes, plan.config.train
        self._printed, self._total = 0, plan.total_steps
        config, cpu = plan.config, plan.device.type == "cpu"
        held_out = (
            f", {len(plan.validation):,} held out for validation (--validation-size)"
            if plan.validation and config.data.validation_size is None
            else ""
        )
        self._print(
            f"{config.model.name} on {plan.dataset.name}: recipe {config.recipe}, "
            f"{_duration(plan)} of {len(plan.train):,} images{held_out}, "
            f"on {name_device(plan.device)}"
            + (f" with {plan.threads} thread{'s' if plan.threads > 1 else ''}" if cpu else "")
            + (f", {plan.session.world_size} processes" if plan.session.world_size > 1 else "")
        )
        if plan.first_step:
            self._print(f"resumed after step {plan.first_step:,} of {plan.folder}")
        if not self._silent:
            self._progress.start()
        self._began = time.perf_counter()

    def stepped(self, step: int, total: int) -> None:
        """Advance the bar."""
        self._total = total
        if self._silent or not self._due():
            return
        seconds = time.perf_counter() - self._began
        rate = f"{(step - self._first_step) * self._batch / seconds:,.0f} images/s"
        self._progress.update(self._task, completed=step, total=total, rate=rate, refresh=True)

    def epoch_ended(self, result: EpochResult, validation: Evaluation | None) -> None:
        """Print a line for the epoch; of many epochs for the first and every few."""
        since = result.step - self._printed
        if self._printed and result.step < self._total and since < self._total / _LINES:
            return
        self._printed = result.step
        line = f"epoch {result.epoch:.4g} · loss {result.loss:.4f}"
        line += f" · train {100 * result.accuracy:.2f} %"
        if validation:
            line += f" · validation {100 * validation.accuracy:.2f} %"
        speed = result.images / result.seconds
        self._print(f"{line} · {result.seconds:.1f} s · {speed:,.0f} images/s")

    def finished(self, result: TrainResult) -> None:
        """Print the accuracy, the duration, the files and the next command."""
        self._progress.stop()
        found = result.evaluation
        low, high = found.accuracy_interval
        self._print(
            f"\ntest accuracy {100 * found.accuracy:.2f} % "
            f"({found.correct:,} of {found.count:,}; 95 % interval {100 * low:.2f} to "
            f"{100 * high:.2f} %) in {result.seconds:.1f} s"
        )
        if found.is_imbalanced:
            self._print(
                f"balanced accuracy {100 * found.balanced_accuracy:.2f} %, macro F1 "
                f"{100 * found.macro_f1:.2f} %; recall: {_list_recalls(found, self._classes)}"
            )
            if self._train.class_weights == "none":
                self._print("the classes are imbalanced: try --class-weights balanced")
        self._print(f"model  {result.output}")
        self._print(f"run    {result.folder}  (curves, confusion matrix, mistakes, metrics)")
        self._print(f"next   vggnet evaluate {result.output}")

    def _print(self, text: str) -> None:
        if not self._silent:
            self._console.print(printable_lines(text), markup=False)


def _duration(plan: Plan) -> str:
    """Return how long a run trains, in words, before "of … images"."""
    train, steps = plan.config.train, plan.total_steps
    if train.minutes:
        return f"{train.minutes:g} minute{'s' if train.minutes != 1 else ''}"
    epochs = f"{train.epochs:.4g} {'epoch' if train.epochs == 1 else 'epochs'}"
    return f"{epochs} ({steps:,} steps: --min-steps)" if steps <= train.min_steps else epochs


def _list_recalls(found: Evaluation, classes: tuple[str, ...]) -> str:
    """Return the recall of each class and its number of images, the lowest first."""
    rows = [row for row in found.per_class(classes) if row["count"]]
    rows.sort(key=lambda row: row["recall"])
    return list_names(
        [f"{row['class']} {100 * float(row['recall']):.1f} % of {row['count']:,}" for row in rows]
    )


class JsonReporter(Display, Reporter):
    """Prints one JSON object at the end."""

    def started(self, plan: Plan) -> None:
        """Remember whether this process prints."""
        self._plan = plan

    def finished(self, result: TrainResult) -> None:
        """Print the result."""
        if not self._plan.session.is_main:
            return
        epochs = [
            {
                "epoch": epoch.epoch,
                "loss": epoch.loss,
                "accuracy": epoch.accuracy,
                "seconds": epoch.seconds,
                "validation": score and asdict(score),
            }
            for epoch, score in zip(result.epochs, result.validations, strict=True)
        ]
        summary = {
            "test": summarize(result.evaluation, self._plan.dataset.classes),
            "seconds": result.seconds,
            "model": str(result.output),
            "run": str(result.folder),
            "epochs": epochs,
        }
        print(json.dumps(summary))
