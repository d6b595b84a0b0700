"""What a run leaves when it ends: model files, figures, images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from vggnet.artifacts.model_card import ModelCard, build_card
from vggnet.artifacts.model_file import save_model
from vggnet.artifacts.plots import render_confusion_matrix, render_curves, render_mistakes
from vggnet.artifacts.run_folder import FINISHED, RunFolder
from vggnet.artifacts.summary import headline, summarize
from vggnet.engine.environment import describe_environment
from vggnet.engine.evaluate import Evaluation
from vggnet.errors import OutputError
from vggnet.model.folding import fold_batch_norm
from vggnet.model.vgg import VGG
from vggnet.run.history import History
from vggnet.run.plan import Plan

MODEL = "model.safetensors"


def save_weights_so_far(plan: Plan, network: VGG, folder: RunFolder) -> Path:
    """Save the weights of an unfinished training, and return where.

    Raises:
        OutputError: The disk does not take them.
    """
    path = folder.path / MODEL
    save_model(path, fold_batch_norm(network.eval()), _card(plan, None))
    return path


def save_results(
    plan: Plan,
    network: VGG,
    evaluation: Evaluation,
    history: History,
    folder: RunFolder,
    warn: Callable[[str], None],
) -> None:
    """Leave all that a finished run promises.

    The model goes to both its places, so that one full disk does not cost it; an image
    that the disk does not take is a warning.

    Raises:
        OutputError: A model file cannot be written.
    """
    _save_model(plan, network, evaluation, folder)
    for write in _images(plan, evaluation, history, folder):
        try:
            write()
        except OutputError as error:
            warn(str(error))


def _save_model(plan: Plan, network: VGG, evaluation: Evaluation, folder: RunFolder) -> None:
    card = _card(plan, evaluation)
    failures, saved = [], []
    for path in (folder.path / MODEL, plan.output):
        try:
            save_model(path, network, card)
            saved.append(path)
        except OutputError as error:
            failures.append(str(error))
    if failures:
        where = f"; the trained weights are in {saved[0]}" if saved else ""
        raise OutputError("; ".join(failures) + where)


def _images(
    plan: Plan, evaluation: Evaluation, history: History, folder: RunFolder
) -> list[Callable[[], None]]:
    """Return what writes each; the last one marks the run as finished."""
    path, images, classes = folder.path, plan.dataset.test.images, plan.dataset.classes
    smoothing = plan.config.train.label_smoothing
    return [
        lambda: render_curves(
            path / "curves.png", history.epochs, history.validations, evaluation, smoothing
        ),
        lambda: render_confusion_matrix(path / "confusion_matrix.png", evaluation, classes),
        lambda: render_mistakes(path / "mistakes.png", images, evaluation, classes),
        lambda: folder.write_json(FINISHED, summarize(evaluation, classes)),
    ]


def _card(plan: Plan, evaluation: Evaluation | None) -> ModelCard:
    return build_card(
        plan.config,
        plan.dataset.classes,
        plan.dataset.shape,
        plan.dataset.sha256,
        describe_environment(),
        None if evaluation is None else headline(evaluation),
    )
