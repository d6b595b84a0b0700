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
from vggnet.engine.evaluate import Evaluation
from vggnet.engine.fit import EpochResult
from vggnet.run import Plan, Reporter, TrainResult
from vggnet.run.progress import describe_epoch, describe_result, describe_start

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
        self._printed, self._total = 0, plan.total_steps
        self._print(describe_start(plan))
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
        self._print(describe_epoch(result, validation))

    def finished(self, result: TrainResult) -> None:
        """Print the accuracy, the duration, the files and the next command."""
        self._progress.stop()
        self._print(f"\n{describe_result(result)}")
        self._print(f"next   vggnet evaluate {result.output}")

    def _print(self, text: str) -> None:
        if not self._silent:
            self._console.print(printable_lines(text), markup=False)


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
