"""What `vggnet train` prints: a bar on a terminal, plain lines in a pipe, rank 0 alone."""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import asdict
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from vggnet.artifacts.summary import summarize
from vggnet.cli.terminal import printable_lines, warn
from vggnet.engine.device import name_device
from vggnet.engine.evaluate import Evaluation
from vggnet.engine.fit import EpochResult
from vggnet.run import Plan, Reporter, TrainResult

_REDRAW = 0.1
"""Seconds between two redrawings of the bar; each costs the training thread 0.3 ms."""


class PatientConsole(Console):
    """Outlives the reader of its pipe."""

    def on_broken_pipe(self) -> None:
        """Print nothing more, but let the training go on: its results are files."""
        with contextlib.suppress(SystemExit):
            super().on_broken_pipe()


class TerminalReporter(Reporter):
    """For people."""

    def __init__(self) -> None:
        self._console = PatientConsole(highlight=False, soft_wrap=True)
        self._progress = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("steps · {task.fields[rate]}"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            auto_refresh=False,  # a thread that redraws would wait for, and take, the GIL
            disable=not self._console.is_terminal,
        )
        self._task = self._progress.add_task("training", total=None, rate="")
        self._drawn = 0.0
        self._silent = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def started(self, plan: Plan) -> None:
        """Say what is going to happen."""
        self._silent = not plan.session.is_main
        self._batch = plan.config.train.global_batch_size
        self._first_step = plan.first_step
        config, cpu = plan.config, plan.device.type == "cpu"
        self._print(
            f"{config.model.name} on {plan.dataset.name}: recipe {config.recipe}, "
            f"{config.train.epochs:g} {'epoch' if config.train.epochs == 1 else 'epochs'} of "
            f"{len(plan.train):,} images, on {name_device(plan.device)}"
            + (f" with {plan.threads} thread{'s' if plan.threads > 1 else ''}" if cpu else "")
            + (f", {plan.session.world_size} processes" if plan.session.world_size > 1 else "")
        )
        if plan.first_step:
            self._print(f"resumed after step {plan.first_step:,} of {plan.folder}")
        if not self._silent:
            self._progress.start()
        self._began = time.perf_counter()

    def stepped(self, step: int, total: int) -> None:
        """Move the bar."""
        now = time.perf_counter()
        if self._silent or self._progress.disable or now - self._drawn < _REDRAW:
            return
        self._drawn = now
        rate = f"{(step - self._first_step) * self._batch / (now - self._began):,.0f} images/s"
        self._progress.update(self._task, completed=step, total=total, rate=rate)
        self._progress.refresh()

    def epoch_ended(self, result: EpochResult, validation: Evaluation | None) -> None:
        """Print an epoch's line."""
        line = f"epoch {result.epoch:.4g} · loss {result.loss:.4f}"
        line += f" · train {100 * result.accuracy:.2f} %"
        if validation:
            line += f" · validation {100 * validation.accuracy:.2f} %"
        speed = result.images / result.seconds
        self._print(f"{line} · {result.seconds:.1f} s · {speed:,.0f} images/s")

    def warned(self, message: str) -> None:
        """Print a warning to standard error."""
        warn(message)

    def finished(self, result: TrainResult) -> None:
        """Say how good it is, how long it took, where it is, and what to do with it."""
        self._progress.stop()
        found = result.evaluation
        low, high = found.accuracy_interval
        self._print(
            f"\ntest accuracy {100 * found.accuracy:.2f} % "
            f"({found.correct:,} of {found.count:,}; 95 % interval {100 * low:.2f} to "
            f"{100 * high:.2f} %) in {result.seconds:.1f} s"
        )
        self._print(f"model  {result.output}")
        self._print(f"run    {result.folder}  (curves, confusion matrix, mistakes, metrics)")
        self._print(f"next   vggnet evaluate {result.output}")

    def _print(self, text: str) -> None:
        if not self._silent:
            self._console.print(printable_lines(text), markup=False)


class JsonReporter(Reporter):
    """For machines: one object at the end."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass

    def started(self, plan: Plan) -> None:
        """Remember whether this is the process that prints."""
        self._plan = plan

    def warned(self, message: str) -> None:
        """Print a warning to standard error."""
        warn(message)

    def finished(self, result: TrainResult) -> None:
        """Print what the run came to."""
        if not self._plan.session.is_main:
            return
        summary = summarize(result.evaluation, self._plan.dataset.classes)
        print(
            json.dumps(
                {
                    "test": summary,
                    "seconds": result.seconds,
                    "model": str(result.output),
                    "run": str(result.folder),
                    "epochs": [
                        {
                            "epoch": epoch.epoch,
                            "loss": epoch.loss,
                            "accuracy": epoch.accuracy,
                            "seconds": epoch.seconds,
                            "validation": score and asdict(score),
                        }
                        for epoch, score in zip(result.epochs, result.validations, strict=True)
                    ],
                }
            )
        )
