"""Start a run, or resume one."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

from vggnet.artifacts.run_folder import RunFolder
from vggnet.config import Config
from vggnet.engine.device import computing, own_random_numbers
from vggnet.engine.environment import describe_environment
from vggnet.engine.session import Session, explain_lost_connection, open_session
from vggnet.recipes import DEFAULT_RECIPE, resolve_config
from vggnet.run.checkpointing import CheckpointSchedule
from vggnet.run.plan import Options, Plan, Reporter, Start, resume_command
from vggnet.run.preflight import prepare
from vggnet.run.results import TrainResult, save_results
from vggnet.run.resume import launch_id, start_from, start_new
from vggnet.run.training import Training


def train(
    recipe: str | None = None,
    *,
    output: str | Path | None = None,
    runs: str | Path = "runs",
    name: str | None = None,
    resume: str | Path | None = None,
    checkpoint_every: str | None = None,
    force: bool = False,
    reporter: Reporter | None = None,
    **settings: dict[str, Any],
) -> TrainResult:
    """Train a network, evaluate it on the test set, and save it.

    Args:
        recipe: The recipe to start from: "fast" (the default), "finetune", "best" or "article".
        output: The model file, `.pth` or `.safetensors`; default: `<dataset>_vggnet.pth` in
            the current folder.
        runs: Folder that contains the run folders.
        name: Name of the run folder; default: recipe, dataset and time.
        resume: Folder of a run to resume, with its own settings.
        checkpoint_every: Steps ("10") or seconds ("30s"); default: 30 s.
        force: Replace an existing file at `output` that vggnet did not write.
        reporter: Is told of the progress.
        settings: `model`, `data`, `augment` and `train`: values that override the recipe, for
            example `train={"epochs": 2, "seed": 1}`.

    Raises:
        VggnetError: `vggnet.errors` lists the kinds.
    """
    options = Options(
        output=Path(output) if output else None,
        force=force,
        runs=Path(runs),
        name=name,
        checkpoint_every=checkpoint_every,
    )
    if resume is not None:
        chosen = {"recipe": recipe} if recipe else {}
        return resume_run(Path(resume), (chosen, settings), options, reporter)
    config = resolve_config({"recipe": recipe or DEFAULT_RECIPE}, settings)
    return run(config, options, reporter)


def run(
    config: Config, options: Options | None = None, reporter: Reporter | None = None
) -> TrainResult:
    """Train with a complete configuration.

    A worker that torchrun has restarted (`--max-restarts`) resumes its own run.

    Raises:
        VggnetError: `vggnet.errors` lists the kinds.
    """
    began, options, reporter = time.perf_counter(), options or Options(), reporter or Reporter()
    with open_session(options.timeout) as session:
        start = start_new(config, options, reporter.warned) if session.is_main else None
        return _execute(session.broadcast_object(start), options, session, reporter, began)


def resume_run(
    folder: Path | None,
    layers: Sequence[Mapping[str, Any]] = (),
    options: Options | None = None,
    reporter: Reporter | None = None,
) -> TrainResult:
    """Resume a run from its latest complete checkpoint, as if it had never stopped.

    Args:
        folder: The run folder; default: `options.name`, or else the newest in `options.runs`.
        layers: Settings that override those of the run. Only settings that do not change the
            training are allowed; with a constant schedule, more epochs are.
        options: As in `run`.
        reporter: Is told of the progress, and of what has changed.

    Raises:
        RunFinishedError: The run is finished.
        CheckpointError: There is no complete checkpoint.
        ConfigError: A setting or the dataset would make it another training.
        VggnetError: `vggnet.errors` lists the other kinds.
    """
    began, options, reporter = time.perf_counter(), options or Options(), reporter or Reporter()
    with open_session(options.timeout) as session:
        start = start_from(folder, layers, options, reporter.warned) if session.is_main else None
        return _execute(session.broadcast_object(start), options, session, reporter, began)


def _execute(
    start: Start, options: Options, session: Session, reporter: Reporter, began: float
) -> TrainResult:
    schedule = CheckpointSchedule(options.checkpoint_every)
    plan = prepare(start, options, session)
    for warning in plan.warnings if session.is_main else ():
        reporter.warned(warning)
    precision = plan.config.train.precision
    with computing(precision, plan.threads), own_random_numbers(plan.device):
        training = Training(plan, schedule, reporter)
        session.barrier()  # nothing is written before every process has passed its checks
        with closing(_open_folder(plan, options)) if session.is_main else nullcontext() as folder:
            if folder:
                folder.write_json("config.json", plan.config.model_dump(mode="json"))
                folder.write_json("environment.json", describe_environment())
            path = session.broadcast_object(folder.path if folder else None)
            advice = f"Resume from the last checkpoint: {resume_command(path, session)}"
            with explain_lost_connection(advice):
                trained = training.run(folder)
            if folder:
                save_results(plan, trained, folder, reporter.warned)
    return TrainResult(
        trained.evaluation,
        trained.history.epochs,
        trained.history.validations,
        plan.config,
        plan.output,
        path,
        time.perf_counter() - began,
    )


def _open_folder(plan: Plan, options: Options) -> RunFolder:
    """Open the folder of the run that is resumed, or make a new one."""
    if plan.folder:
        return RunFolder.reopen(plan.folder, options.tensorboard)
    stem = f"{plan.config.recipe}-{plan.dataset.name}"
    return RunFolder.create(options.runs, options.name, stem, options.tensorboard, launch_id())
