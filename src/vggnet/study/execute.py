"""Run a study: one ordinary training after another, except those that are done."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import torch

from vggnet.artifacts.model_file import load_model
from vggnet.config import Config
from vggnet.errors import CheckpointError, RunFinishedError
from vggnet.model.vgg import VGG
from vggnet.run import Options, Reporter, TrainResult, resume_run, run
from vggnet.study.ledger import FinishedRun, Ledger
from vggnet.study.plan import Study, shared_settings


def run_study(
    study: Study, ledger: Ledger, report: Callable[[str], AbstractContextManager[Reporter]]
) -> Iterator[FinishedRun]:
    """Train what is missing in the ledger, add it there, and yield it.

    An interrupted training resumes from its last checkpoint.

    Args:
        study: What to train.
        ledger: The finished runs.
        report: Opens the reporter of the run with this name.

    Raises:
        VggnetError: See `vggnet.run.run`; the ledger keeps the finished runs.
    """
    for name, config in study.runs.items():
        if name not in ledger.runs:
            with report(name) as reporter:
                finished = _describe(config, _train(name, config, study.output, reporter))
            ledger.append(finished)
            yield finished


def _train(name: str, config: Config, output: Path, reporter: Reporter) -> TrainResult:
    runs = output / "runs"
    options = Options(output=output / f"{name}.pth", runs=runs, name=name)
    folder = runs / name
    if folder.is_dir():
        try:
            return resume_run(folder, (config.model_dump(mode="json"),), options, reporter)
        # Killed before the first checkpoint, or between the end of the run and the ledger.
        except (CheckpointError, RunFinishedError):
            shutil.rmtree(folder)
    return run(config, options, reporter)


def _describe(config: Config, result: TrainResult) -> FinishedRun:
    card = load_model(result.output).card
    assert card.dataset_sha256 is not None
    assert card.environment is not None
    with torch.device("meta"):
        parameters = sum(parameter.numel() for parameter in VGG(result.config.model).parameters())
    return FinishedRun(
        model=config.model.architecture,
        seed=config.train.seed,
        depth=config.model.depth,
        parameters=parameters,
        accuracy=result.accuracy,
        loss=result.evaluation.loss,
        count=result.evaluation.count,
        train_loss=result.epochs[-1].loss,
        seconds=sum(epoch.seconds for epoch in result.epochs),
        images=sum(epoch.images for epoch in result.epochs),
        settings=shared_settings(config),
        dataset_sha256=card.dataset_sha256,
        environment=card.environment,
    )
