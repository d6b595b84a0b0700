"""Start a run, or go on with one that was stopped."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from vggnet.artifacts.run_folder import FINISHED, RunFolder
from vggnet.config import Config
from vggnet.engine.device import computing, own_random_numbers
from vggnet.engine.environment import describe_environment
from vggnet.engine.evaluate import Evaluation, evaluate
from vggnet.engine.session import Session, open_session
from vggnet.errors import ConnectionLostError, OutputError
from vggnet.inference.predict import BATCH_SIZE
from vggnet.kernels import accelerate
from vggnet.model.folding import fold_batch_norm
from vggnet.recipes import DEFAULT_RECIPE, resolve_config
from vggnet.run.boundary import CheckpointSchedule
from vggnet.run.options import Options
from vggnet.run.origin import Origin, begin, go_on, launch_id
from vggnet.run.outcome import save_results
from vggnet.run.plan import Reporter, TrainResult, resume_command
from vggnet.run.settle import settle
from vggnet.run.training import Training, check_evaluation


def train(
    recipe: str | None = None,
    *,
    output: str | Path | None = None,
    runs: str | Path = "runs",
    name: str | None = None,
    resume: str | Path | None = None,
    checkpoint_every: str | None = None,
    reporter: Reporter | None = None,
    **settings: dict[str, Any],
) -> TrainResult:
    """Train a network, evaluate it on the test set, and save it.

    Args:
        recipe: The named configuration to start from: "fast" (the default), "best"
            or "article".
        output: The model file, `.pth` or `.safetensors`; by default
            `<dataset>_vggnet.pth` in the current folder.
        runs: The folder under which the run makes its own.
        name: The run's name; made up from recipe, dataset and time by default.
        resume: The folder of a run to go on with, under its own settings.
        checkpoint_every: Steps, "10", or seconds, "30s"; by default 30 s.
        reporter: Told of the progress.
        settings: `model`, `data` and `train`: values to lay over the recipe's, for
            example `train={"epochs": 2, "seed": 1}`.

    Raises:
        VggnetError: Of the kind that says what was wrong; see `vggnet.errors`.
    """
    options = Options(
        output=Path(output) if output else None,
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
    """Train as a complete configuration says.

    A worker that torchrun has restarted (`--max-restarts`) goes on with its own run.

    Raises:
        VggnetError: Of the kind that says what was wrong.
    """
    options, reporter = options or Options(), reporter or Reporter()
    return _carry_out(lambda: begin(config, options, reporter), options, reporter)


def resume_run(
    folder: Path | None,
    layers: Sequence[Mapping[str, Any]] = (),
    options: Options | None = None,
    reporter: Reporter | None = None,
) -> TrainResult:
    """Go on with a run from its latest whole checkpoint, as if it had never stopped.

    Args:
        folder: The run's; None takes `options.name`, or else the newest of `options.runs`.
        layers: Settings to lay over the run's own. Only those that leave the training
            what it is may differ; more epochs do under a constant rate.
        options: As in `run`.
        reporter: Told of the progress, and of what has changed.

    Raises:
        RunFinishedError: There is nothing left to do.
        CheckpointError: There is no whole checkpoint.
        ConfigError: A setting, or the dataset, would make it another training.
        VggnetError: Of the kind that says what was wrong.
    """
    options, reporter = options or Options(), reporter or Reporter()
    return _carry_out(lambda: go_on(folder, layers, options, reporter), options, reporter)


def _carry_out(find: Callable[[], Origin], options: Options, reporter: Reporter) -> TrainResult:
    started = time.perf_counter()
    checkpoint_schedule = CheckpointSchedule(options.checkpoint_every)
    place: tuple[Path, Session] | None = None
    try:
        with open_session(options.timeout) as session, ExitStack() as stack:
            origin = session.broadcast_object(find() if session.is_main else None)
            assert origin is not None
            plan = settle(origin, options, session)
            for warning in plan.warnings if session.is_main else ():
                reporter.warned(warning)
            folder = None
            if session.is_main:
                folder = _open_folder(origin, options, f"{plan.config.recipe}-{plan.dataset.name}")
                stack.callback(folder.close)
            plan = replace(
                plan, folder=session.broadcast_object(folder.path if folder else plan.folder)
            )
            place = plan.folder, session
            stack.enter_context(computing(plan.config.train.precision, plan.threads))
            stack.enter_context(own_random_numbers(plan.device))
            training = Training(plan, folder, origin.checkpoint, checkpoint_schedule, reporter)
            evaluation = _train_and_save(training)
    except ConnectionLostError as error:
        if place:
            error.args = (f"{error}. Go on from the last checkpoint: {resume_command(*place)}",)
        raise
    seconds = time.perf_counter() - started
    return TrainResult(
        evaluation,
        training.history.epochs,
        training.history.validations,
        plan.config,
        plan.output,
        plan.folder,
        seconds,
    )


def _open_folder(origin: Origin, options: Options, stem: str) -> RunFolder:
    if origin.folder:
        folder = RunFolder(origin.folder, options.tensorboard)
        try:
            # What it says is of the steps that were all until now.
            (origin.folder / FINISHED).unlink(missing_ok=True)
        except OSError as error:
            folder.close()
            raise OutputError(f"cannot change {origin.folder}: {error.strerror}") from None
        return folder
    return RunFolder.create(options.runs, options.name, stem, options.tensorboard, launch_id())


def _train_and_save(training: Training) -> Evaluation:
    """Train, evaluate on the test set, save."""
    plan, folder = training.plan, training.folder
    if folder:
        folder.write_json("config.json", plan.config.model_dump(mode="json"))
        folder.write_json("environment.json", describe_environment())
    training.carry_out()
    network = fold_batch_norm(training.state.eval_model.eval())
    replica = accelerate(network, plan.config.train.kernels)
    evaluation = evaluate(replica, training.cut(plan.dataset.test, BATCH_SIZE), plan.session)
    check_evaluation(evaluation, training.history.epochs[-1])
    if folder:
        warn = training.reporter.warned
        save_results(plan, network, evaluation, training.history, folder, warn)
    return evaluation
