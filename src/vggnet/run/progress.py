"""What `vggnet.train` shows of a run: a bar and the loss in a notebook, lines of text elsewhere."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from html import escape
from typing import Any

from vggnet.config import Config
from vggnet.data.collection import list_names
from vggnet.engine.device import name_device
from vggnet.engine.evaluate import Evaluation
from vggnet.engine.fit import EpochResult
from vggnet.engine.schedule import side_at
from vggnet.run.plan import Plan, Reporter
from vggnet.run.results import TrainResult

_REDRAW = 0.5
"""Seconds between two drawings; each waits for the device, and takes 2 ms."""

_POINTS = 60
"""Points of the curve at most; each is the mean of as many steps as needed."""

_LINES = 8
"""Epochs that a cell shows, the last ones."""

_WIDTH, _HEIGHT = 360, 90
"""Pixels of the curve."""


def choose_reporter() -> Reporter:
    """Return the reporter for a notebook if this is one, or else the one for text."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return NotebookReporter() if hasattr(shell, "kernel") else TextReporter()


def describe_start(plan: Plan) -> str:
    """Return what is trained on what, and where."""
    config, cpu, processes = plan.config, plan.device.type == "cpu", plan.session.world_size
    held_out = (
        f", {len(plan.validation):,} held out for validation (--validation-size)"
        if plan.validation and config.data.validation_size is None
        else ""
    )
    return (
        f"{config.model.name} on {plan.dataset.name}: recipe {config.recipe}, "
        f"{_duration(plan)} of {len(plan.train):,} images{_growth(config)}{held_out}, "
        f"on {name_device(plan.device)}"
        + (f" with {plan.threads} thread{'s' if plan.threads > 1 else ''}" if cpu else "")
        + (f", {processes} processes" if processes > 1 else "")
        + (f"\nresumed after step {plan.first_step:,} of {plan.folder}" if plan.first_step else "")
    )


def describe_epoch(result: EpochResult, validation: Evaluation | None) -> str:
    """Return the figures of an epoch."""
    held_out = f" · validation {100 * validation.accuracy:.2f} %" if validation else ""
    return (
        f"epoch {result.epoch:.4g} · loss {result.loss:.4f} · train {100 * result.accuracy:.2f} %"
        f"{held_out} · {result.seconds:.1f} s · {result.images / result.seconds:,.0f} images/s"
    )


def describe_result(result: TrainResult) -> str:
    """Return the accuracy, the duration and the files."""
    found = result.evaluation
    lines = [f"test {found.describe()} in {result.seconds:.1f} s"]
    if found.is_imbalanced:
        lines.append(
            f"balanced accuracy {100 * found.balanced_accuracy:.2f} %, macro F1 "
            f"{100 * found.macro_f1:.2f} %; recall: {_list_recalls(found, result.classes)}"
        )
        if result.config.train.class_weights == "none":
            lines.append("the classes are imbalanced: try --class-weights balanced")
    lines.append(f"model  {result.output}")
    lines.append(f"run    {result.folder}  (curves, confusion matrix, mistakes, metrics)")
    return "\n".join(lines)


def _duration(plan: Plan) -> str:
    """Return how long a run trains, in words, before "of … images"."""
    train, steps = plan.config.train, plan.total_steps
    if train.minutes:
        return f"{train.minutes:g} minute{'s' if train.minutes != 1 else ''}"
    epochs = f"{train.epochs:.4g} {'epoch' if train.epochs == 1 else 'epochs'}"
    return f"{epochs} ({steps:,} steps: --min-steps)" if steps <= train.min_steps else epochs


def _growth(config: Config) -> str:
    """Return the smallest size of the training images if they grow, in words."""
    full = config.model.image_size
    least = side_at(0.0, config.train.growth_fraction, full, config.model.downsampling)
    return f" that grow from {least} to {full} pixels" if least < full else ""


def _list_recalls(found: Evaluation, classes: tuple[str, ...]) -> str:
    """Return the recall of each class and its number of images, the lowest first."""
    rows = [row for row in found.per_class(classes) if row["count"]]
    rows.sort(key=lambda row: row["recall"])
    return list_names(
        [f"{row['class']} {100 * float(row['recall']):.1f} % of {row['count']:,}" for row in rows]
    )


class TextReporter(Reporter):
    """Prints a line for each epoch, in the first of several processes."""

    _silent = False

    def started(self, plan: Plan) -> None:
        """Print what is trained on what."""
        self._silent = not plan.session.is_main
        self._show(describe_start(plan))

    def epoch_ended(self, result: EpochResult, validation: Evaluation | None) -> None:
        """Print the figures of the epoch."""
        self._show(describe_epoch(result, validation))

    def warned(self, message: str) -> None:
        """Print a warning to standard error."""
        print(f"vggnet: warning: {message}", file=sys.stderr)

    def finished(self, result: TrainResult) -> None:
        """Print the accuracy and the files."""
        self._show(describe_result(result))

    def _show(self, text: str) -> None:
        if not self._silent:
            print(text, flush=True)


class NotebookReporter(TextReporter):
    """Draws a bar and the curve of the loss in the output of a cell, and redraws them.

    The thread of the cell draws; another thread would compete with the steps for the GIL.
    """

    def __init__(self) -> None:
        self._handle: Any = None
        self._lines: list[str] = []
        self._losses: list[float] = []
        self._step = self._total = self._first_step = self._batch = 0
        self._rate = 0.0
        self._began = self._drawn = time.perf_counter()

    def started(self, plan: Plan) -> None:
        """Draw an empty bar."""
        self._step, self._total = plan.first_step, plan.total_steps
        self._first_step, self._batch = plan.first_step, plan.config.train.global_batch_size
        self._began = time.perf_counter()
        super().started(plan)

    def stepped(self, step: int, total: int) -> None:
        """Remember the step; under `minutes`, the total is an estimate."""
        self._step, self._total = step, total
        seconds = time.perf_counter() - self._began
        self._rate = (step - self._first_step) * self._batch / seconds

    def watched(self, losses: Callable[[], list[float]]) -> None:
        """Redraw the bar and the curve, if it is time."""
        if time.perf_counter() - self._drawn >= _REDRAW:
            self._draw([*self._losses, *losses()])

    def epoch_ended(self, result: EpochResult, validation: Evaluation | None) -> None:
        """Add a line for the epoch."""
        self._losses += result.step_losses
        super().epoch_ended(result, validation)

    def _show(self, text: str) -> None:
        self._lines += text.split("\n")
        self._draw(self._losses)

    def _draw(self, losses: list[float]) -> None:
        from IPython.display import display

        lines = [self._lines[0], *self._lines[1:][-_LINES:]]
        text = "\n".join(lines)
        status = f"step {self._step:,} of {self._total:,} · {self._rate:,.0f} images/s"
        html = (
            f"<div>{escape(lines[0])}</div>"
            f'<progress style="width:{_WIDTH}px" value="{self._step}" max="{self._total}">'
            f"</progress> {status}{_draw_curve(losses)}"
            f'<pre style="margin:0">{escape(chr(10).join(lines[1:]))}</pre>'
        )
        bundle = {"text/html": html, "text/plain": text}
        if self._handle is None:
            self._handle = display(bundle, raw=True, display_id=True)  # type: ignore[no-untyped-call]
        else:
            self._handle.update(bundle, raw=True)
        self._drawn = time.perf_counter()


def _draw_curve(losses: list[float]) -> str:
    """Return the loss of all steps so far as SVG, on a logarithmic axis."""
    size = -(-len(losses) // _POINTS) or 1
    means = [
        max(1e-6, sum(part) / len(part))
        for at in range(0, len(losses), size)
        if (part := losses[at : at + size])
    ]
    if len(means) < 2:
        return ""
    low, high = math.log(min(means)), math.log(max(means))
    points = " ".join(
        f"{number * _WIDTH / (len(means) - 1):.0f},"
        f"{(high - math.log(mean)) / ((high - low) or 1) * (_HEIGHT - 4) + 2:.0f}"
        for number, mean in enumerate(means)
    )
    return (
        f'<div><svg width="{_WIDTH}" height="{_HEIGHT}" role="img" aria-label="training loss">'
        f'<polyline fill="none" stroke="#0072B2" stroke-width="1.5" points="{points}"/></svg> '
        f"training loss {means[0]:.3g} → {means[-1]:.3g}</div>"
    )
