"""Carry a study out: one ordinary training after another, those that are done left out."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import torch

from vggnet.artifacts.model_file import load_model
from vggnet.errors import CheckpointError, RunFinishedError
from vggnet.model.vgg import VGG
from vggnet.run import Options, Reporter, TrainResult, resume_run, run
from vggnet.study.ledger import Finished, Ledger
from vggnet.study.plan import Run, Study, shared_settings


def carry_out(
    study: Study, ledger: Ledger, report: Callable[[Run], AbstractContextManager[Reporter]]
) -> Iterator[Finished]:
    """Train what the ledger has not, write each into it, and give it out.

    A training that was interrupted goes on from its last checkpoint.

    Args:
        study: What to train.
        ledger: What is done.
        report: Opens what is told of a run's progress.

    Raises:
        VggnetError: As `vggnet.run.run`; what is done stands in the ledger.
    """
    for one in study.runs:
        if one.name not in ledger.runs:
            with report(one) as reporter:
                finished = _describe(one, _train(one, study, reporter))
            ledger.append(finished)
            yield finished


def _train(one: Run, study: Study, reporter: Reporter) -> TrainResult:
    runs = study.output / "runs"
    options = Options(output=study.output / f"{one.name}.pth", runs=runs, name=one.name)
    folder = runs / one.name
    if folder.is_dir():
        try:
            return resume_run(folder, (one.config.model_dump(mode="json"),), options, reporter)
        except (CheckpointError, RunFinishedError):  # killed too early, or just before the ledger
            shutil.rmtree(folder)
    return run(one.config, options, reporter)


def _describe(one: Run, result: TrainResult) -> Finished:
    card = load_model(result.output).card
    assert card.dataset_sha256 is not None
    assert card.environment is not None
    with torch.device("meta"):
        parameters = sum(parameter.numel() for parameter in VGG(result.config.model).parameters())
    return Finished(
        model=one.config.model.architecture,
        seed=one.config.train.seed,
        depth=one.config.model.depth,
        parameters=parameters,
        accuracy=result.accuracy,
        loss=result.evaluation.loss,
        count=result.evaluation.count,
        train_loss=result.epochs[-1].loss,
        seconds=sum(epoch.seconds for epoch in result.epochs),
        images=sum(epoch.images for epoch in result.epochs),
        settings=shared_settings(one.config),
        dataset_sha256=card.dataset_sha256,
        environment=card.environment,
    )
