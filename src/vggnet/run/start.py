"""Start a run, or go on with one that was stopped."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from vggnet.artifacts.atomic import check_writable
from vggnet.artifacts.checkpoint import CheckpointFolder
from vggnet.artifacts.model_file import check_suffix
from vggnet.artifacts.run_folder import CHECKPOINTS, FINISHED, RunFolder, find_newest
from vggnet.config import Config
from vggnet.data.dataset import hold_out
from vggnet.data.folder import dataset_name
from vggnet.data.storage import load_configured
from vggnet.engine.device import (
    accelerated,
    check_precision,
    choose_device,
    computing,
    usable_cores,
)
from vggnet.engine.environment import describe_environment
from vggnet.engine.evaluate import Evaluation, evaluate
from vggnet.engine.schedule import count_steps
from vggnet.engine.session import PATIENCE, Session, open_session
from vggnet.engine.snapshot import Snapshot
from vggnet.errors import CheckpointError, ConfigError, ConnectionLostError, RunFinishedError
from vggnet.inference.predict import BATCH_SIZE
from vggnet.model.folding import fold_batch_norm
from vggnet.recipes import DEFAULT_RECIPE, resolve_config
from vggnet.run.boundary import Cadence
from vggnet.run.circumstances import check_same_pictures, check_same_training
from vggnet.run.outcome import MODEL, save_results
from vggnet.run.plan import Plan, Reporter, TrainResult, fit_to_data, resume_command
from vggnet.run.training import Training


@dataclass(frozen=True)
class Options:
    """How a run is carried out, which decides nothing about the training itself."""

    output: Path | None = None
    """The model file; by default the resumed run's, or `<dataset>_vggnet.pth`, here."""
    runs: Path = Path("runs")
    """The folder under which a run makes its own."""
    name: str | None = None
    """The run's name; made up from recipe, dataset and time by default."""
    checkpoint_every: str | None = None
    """Steps, "10", or seconds, "30s"; by default 30 s, rarer where that costs over 1 %."""
    patience: float = PATIENCE
    """Seconds to wait for another process before it is taken for lost."""
    tensorboard: bool = False
    """Write TensorBoard events into the run's folder."""


@dataclass(frozen=True)
class Origin:
    """Where a run begins: at the start, or in a folder that is there, at a checkpoint."""

    config: Config
    folder: Path | None = None
    checkpoint: Snapshot | None = None


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
    options = options or Options()

    def find() -> Origin:
        folder = find_newest(options.runs, _launch()) if _is_restarted() else None
        if folder is None:
            return Origin(config)
        try:
            return Origin(config, folder, _load(folder, reporter))
        except CheckpointError:
            return Origin(config, folder)

    return _carry_out(find, options, reporter or Reporter())


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
    options = options or Options()

    def find() -> Origin:
        path = folder or (options.runs / options.name if options.name else None)
        path = path or find_newest(options.runs)
        if path is None or not path.is_dir():
            raise CheckpointError(f"there is no run in {path or options.runs} to resume")
        checkpoint = _load(path, reporter)
        config = resolve_config(checkpoint.values["config"], *layers)
        return Origin(config, path, checkpoint)

    return _carry_out(find, options, reporter or Reporter())


def _carry_out(find: Callable[[], Origin], options: Options, reporter: Reporter) -> TrainResult:
    started = time.perf_counter()
    cadence = Cadence(options.checkpoint_every)
    place: tuple[Path, Session] | None = None
    try:
        with open_session(options.patience) as session, ExitStack() as stack:
            origin = session.share(find() if session.is_main else None)
            assert origin is not None
            plan = _settle(origin, options, session)
            for remark in plan.remarks if session.is_main else ():
                reporter.warned(remark)
            folder = None
            if session.is_main:
                folder = _open_folder(origin, options, f"{plan.config.recipe}-{plan.dataset.name}")
                stack.callback(folder.close)
            plan = replace(plan, folder=session.share(folder.path if folder else plan.folder))
            place = plan.folder, session
            stack.enter_context(computing(plan.config.train.precision, plan.threads))
            stack.enter_context(_own_random_numbers(plan.device))
            training = Training(plan, folder, origin.checkpoint, cadence, reporter)
            evaluation = _train_and_save(training)
    except ConnectionLostError as error:
        if place:
            error.args = (f"{error}. Go on from the last checkpoint: {resume_command(*place)}",)
        raise
    seconds = time.perf_counter() - started
    epochs = training.history.epochs
    return TrainResult(evaluation, epochs, plan.config, plan.output, plan.folder, seconds)


def _open_folder(origin: Origin, options: Options, stem: str) -> RunFolder:
    if origin.folder:
        return RunFolder(origin.folder, options.tensorboard)
    return RunFolder.create(options.runs, options.name, stem, options.tensorboard, _launch())


def _settle(origin: Origin, options: Options, session: Session) -> Plan:
    """Choose the device, load the data, and check everything that can be before training."""
    config, values = origin.config, origin.checkpoint.values if origin.checkpoint else {}
    recorded = values.get("output", f"{dataset_name(config.data.dataset)}_vggnet.pth")
    output = options.output or Path(recorded)
    check_suffix(output)
    if session.is_main:
        check_writable(output)
    device = choose_device(config.train.device, session.local_rank)
    check_precision(config.train.precision, device)
    dataset = load_configured(config.data)
    config = fit_to_data(config, dataset, session)
    train, validation = hold_out(dataset.train, config.data.validation_size, config.train.seed)
    if values:
        check_same_training(values["config"], config, values["step"])
        check_same_pictures(values["dataset_sha256"], dataset.sha256)
        assert origin.folder is not None
        steps = -(-len(train) // config.train.global_batch_size)
        _check_unfinished(origin.folder, values["step"], count_steps(config.train.epochs, steps))
    return Plan(
        config=config,
        dataset=dataset,
        train=train,
        validation=validation,
        device=device,
        session=session,
        threads=config.train.threads or max(1, usable_cores() // session.local_world_size),
        folder=origin.folder or options.runs,
        output=output,
        first_step=values.get("step", 0),
    )


def _train_and_save(training: Training) -> Evaluation:
    """Train, evaluate on the test set, save."""
    plan, folder = training.plan, training.folder
    if folder:
        folder.write_json("config.json", plan.config.model_dump(mode="json"))
        folder.write_json("environment.json", describe_environment())
    training.carry_out()
    network = fold_batch_norm(training.state.outcome.eval())
    replica = accelerated(network, plan.config.train.kernels)
    evaluation = evaluate(replica, training.cut(plan.dataset.test, BATCH_SIZE), plan.session)
    if folder:
        warn = training.reporter.warned
        save_results(plan, network, evaluation, training.history, folder, warn)
    return evaluation


def _load(folder: Path, reporter: Reporter | None) -> Snapshot:
    """Load a run's latest whole checkpoint, and warn of damaged ones that are newer."""
    checkpoint, damage = CheckpointFolder(folder / CHECKPOINTS).load_latest()
    for sentence in damage:
        if reporter:
            step = checkpoint.values["step"]
            reporter.warned(f"{sentence}; going on from the one before it, step {step}")
    return checkpoint


def _check_unfinished(folder: Path, step: int, total: int) -> None:
    """Refuse to resume a run that has nothing left to do.

    Raises:
        RunFinishedError: It is complete.
        ConfigError: It is past the end that is asked for.
    """
    if step > total:
        raise ConfigError(f"{folder} has already taken {step} steps, more than the {total} asked")
    if step == total and (folder / FINISHED).exists():
        raise RunFinishedError(
            f"{folder} is finished: all {total} steps were taken, and its model is in "
            f"{folder / MODEL}; nothing was changed"
        )


def _is_restarted() -> bool:
    return os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"


def _launch() -> str:
    """Return what torchrun calls this launch, the same after a restart; "" without it."""
    return os.environ.get("TORCHELASTIC_RUN_ID", "")


@contextmanager
def _own_random_numbers(device: torch.device) -> Iterator[None]:
    """Give the caller's generators back as they were."""
    kind = device.type if device.type in ("cuda", "xpu") else "cuda"
    devices = [device] if device.type in ("cuda", "xpu") else []
    with torch.random.fork_rng(devices, device_type=kind):
        yield
