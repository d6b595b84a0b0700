"""What a run writes when it ends: model files, figures, plots."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from html import escape
from pathlib import Path

from vggnet.artifacts.inline import inline_png
from vggnet.artifacts.model_card import ModelCard, build_card
from vggnet.artifacts.model_file import save_model
from vggnet.artifacts.plots import (
    render_confusion_matrix,
    render_curves,
    render_mistakes,
    render_reliability,
)
from vggnet.artifacts.run_folder import FINISHED, MODEL, RunFolder
from vggnet.artifacts.summary import headline, summarize
from vggnet.config import Config
from vggnet.engine.environment import describe_environment
from vggnet.engine.evaluate import Evaluation, Score
from vggnet.engine.fit import EpochResult, TrainState
from vggnet.engine.typicality import Typicality
from vggnet.errors import OutputError
from vggnet.model.folding import fold_batch_norm
from vggnet.model.vgg import VGG
from vggnet.run.checkpointing import History
from vggnet.run.plan import Plan

_CURVES, _CONFUSION, _MISTAKES = "curves.png", "confusion_matrix.png", "mistakes.png"
_FIGURES = {
    _CURVES: "Loss and accuracy",
    _CONFUSION: "Confusion matrix",
    _MISTAKES: "The most confident errors",
}
"""What a notebook shows of a result."""


@dataclass(frozen=True)
class TrainResult:
    """The result of a run.

    Examples:
        >>> import numpy as np
        >>> images = np.random.default_rng(0).random((60, 8, 8))
        >>> result = vggnet.train((images, [0, 1] * 30), epochs=2, reporter=vggnet.Reporter())
        >>> result.evaluation.count, len(result.epochs), result.output.name
        (10, 2, 'arrays_vggnet.pth')
    """

    evaluation: Evaluation
    """Of the saved weights on the test set, which a run reads only once."""
    epochs: list[EpochResult]
    validations: list[Score | None]
    """On the held-out images after each epoch; None without any."""
    config: Config
    output: Path
    """The model file."""
    folder: Path
    """The run folder, with everything else."""
    classes: tuple[str, ...]
    """Names of the classes, in the order of the network's outputs."""
    seconds: float
    """From the call until the last file was written."""

    @property
    def accuracy(self) -> float:
        """Fraction of the test images that are classified correctly."""
        return self.evaluation.accuracy

    def __repr__(self) -> str:
        epochs = self.config.train.epochs
        return (
            f"TrainResult({self.evaluation.describe()}, {self.config.model.name} on "
            f"{Path(self.config.data.dataset).name}, {epochs:g} epoch{'s' * (epochs != 1)} in "
            f"{self.seconds:.1f} s, {self.output})"
        )

    def _repr_html_(self) -> str:
        parts = [f"<p>{escape(repr(self))}</p>"]
        for name, title in _FIGURES.items():
            with suppress(OSError):  # the run folder may be gone
                parts.append(inline_png(self.folder / name, title))
        return "".join(parts)


@dataclass(frozen=True)
class Trained:
    """A network at the end of its training."""

    network: VGG
    """Batch norm is folded into its convolutions."""
    evaluation: Evaluation
    """On the test set."""
    history: History
    typicality: Typicality | None


def save_weights_so_far(plan: Plan, state: TrainState, folder: RunFolder) -> Path:
    """Save the weights of an unfinished training, and return where.

    They go to the run folder, or beside the model file if that folder is lost.

    Raises:
        OutputError: They can be written to neither.
    """
    network, card = fold_batch_norm(state.eval_model.eval()), _build_card(plan, None, None)
    beside = plan.output.with_stem(f"{plan.output.stem}-step-{state.step}")
    try:
        return _save(folder.path / MODEL, network, card)
    except OutputError:
        if folder.is_there():
            raise
        return _save(beside, network, card)


def save_results(
    plan: Plan, trained: Trained, folder: RunFolder, warn: Callable[[str], None]
) -> None:
    """Write everything that a finished run leaves.

    The model goes to two places, so that one full disk does not lose it. A plot that cannot
    be written is only a warning.

    Raises:
        OutputError: A model file cannot be written.
    """
    with suppress(OutputError):  # saving the model says the same
        if warning := folder.restore():
            warn(warning)
    _save_model(plan, trained, folder)
    for write in _writers(plan, trained, folder):
        try:
            write()
        except OutputError as error:
            warn(str(error))


def _save_model(plan: Plan, trained: Trained, folder: RunFolder) -> None:
    card = _build_card(plan, trained.evaluation, trained.typicality)
    failures, saved = [], []
    for path in (folder.path / MODEL, plan.output):
        try:
            saved.append(_save(path, trained.network, card))
        except OutputError as error:
            failures.append(str(error))
    if failures:
        where = f"; the trained weights are in {saved[0]}" if saved else ""
        raise OutputError("; ".join(failures) + where)


def _save(path: Path, network: VGG, card: ModelCard) -> Path:
    save_model(path, network, card)
    return path


def _writers(plan: Plan, trained: Trained, folder: RunFolder) -> list[Callable[[], None]]:
    """Return the functions that write the plots and, last, the file that marks the run finished."""
    path, images, classes = folder.path, plan.dataset.test.images, plan.dataset.classes
    history, evaluation = trained.history, trained.evaluation
    smoothing = plan.config.train.label_smoothing
    return [
        lambda: render_curves(
            path / _CURVES,
            history.epochs,
            history.validations,
            evaluation.uncalibrated,
            smoothing,
        ),
        lambda: render_confusion_matrix(path / _CONFUSION, evaluation, classes),
        lambda: render_reliability(path / "reliability.png", evaluation),
        lambda: render_mistakes(path / _MISTAKES, images, evaluation, classes),
        lambda: folder.write_json(FINISHED, summarize(evaluation, classes)),
    ]


def _build_card(
    plan: Plan, evaluation: Evaluation | None, typicality: Typicality | None
) -> ModelCard:
    return build_card(
        plan.config,
        plan.dataset.classes,
        plan.dataset.shape,
        plan.dataset.sha256,
        describe_environment(),
        None if evaluation is None else headline(evaluation),
        None if evaluation is None else evaluation.calibration,
        typicality,
        plan.origin.model_dump() if plan.origin else None,
    )
