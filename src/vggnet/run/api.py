"""Start a run, or resume one."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any, Unpack

from vggnet.artifacts.run_folder import RunFolder
from vggnet.config import SECTIONS, Config, list_keywords
from vggnet.data.dataset import ARRAYS, Dataset
from vggnet.engine.device import computing, own_random_numbers
from vggnet.engine.environment import describe_environment
from vggnet.engine.session import Session, explain_lost_connection, open_session
from vggnet.errors import ConfigError
from vggnet.recipes import DEFAULT_RECIPE, nest_settings, resolve_config
from vggnet.run.checkpointing import CheckpointSchedule
from vggnet.run.plan import Options, Plan, Reporter, Start, resume_command
from vggnet.run.preflight import prepare
from vggnet.run.progress import choose_reporter
from vggnet.run.results import TrainResult, save_results
from vggnet.run.resume import launch_id, start_from, start_new
from vggnet.run.settings import Settings
from vggnet.run.training import Training


def train(
    dataset: str | Path | Dataset | tuple[Any, Any] | None = None,
    *,
    test: tuple[Any, Any] | None = None,
    recipe: str | None = None,
    output: str | Path | None = None,
    runs: str | Path = "runs",
    name: str | None = None,
    resume: str | Path | None = None,
    checkpoint_every: str | None = None,
    force: bool = False,
    reporter: Reporter | None = None,
    **settings: Unpack[Settings],
) -> TrainResult:
    """Train a network, evaluate it on the test set, and save it.

    Args:
        dataset: A name of `vggnet data list`, a path, a `Dataset`, or images and labels as
            `Dataset.from_arrays` takes them; default: MNIST.
        test: Images and labels for the test, if `dataset` is images and labels; default: a sixth
            of each class is held out.
        recipe: The recipe to start from: "fast" (the default), "finetune", "best" or "article".
        output: The model file, `.pth` or `.safetensors`; default: `<dataset>_vggnet.pth` in
            the current folder.
        runs: Folder that contains the run folders.
        name: Name of the run folder; default: recipe, dataset and time.
        resume: Folder of a run to resume, with its own settings.
        checkpoint_every: Steps ("10") or seconds ("30s"); default: 30 s.
        force: Replace an existing file at `output` that vggnet did not write.
        reporter: Is told of the progress; default: shows it. `vggnet.Reporter()` is silent.
        settings: Values that override the recipe, by the names of the command line's flags, such
            as `epochs=2, batch_size=64`. Tables, as in a settings file, work too.

    Raises:
        VggnetError: `vggnet.errors` lists the kinds.

    Examples:
        >>> result = vggnet.train("mnist", epochs=0.01, reporter=vggnet.Reporter())
        >>> result.evaluation.count
        10000
    """
    layer = nest_settings(settings, inspect.signature(train).parameters) | (
        {} if recipe is None else {"recipe": recipe}
    )
    if dataset is not None:
        name_or_path = dataset.name if isinstance(dataset, Dataset) else dataset
        own = str(name_or_path) if isinstance(name_or_path, str | Path) else ARRAYS
        layer["data"] = {**layer.get("data", {}), "dataset": own}
    config = resolve_config({"recipe": DEFAULT_RECIPE}, layer)
    given = _read_given(dataset, test, config)
    options = Options(
        output=Path(output) if output else None,
        force=force,
        runs=Path(runs),
        name=name,
        checkpoint_every=checkpoint_every,
    )
    reporter = reporter or choose_reporter()
    if resume is None:
        result = run(config, options, reporter, given)
    else:
        result = resume_run(Path(resume), [layer], options, reporter, given)
    reporter.finished(result)
    return result


def _list_settings(function: Callable[..., object]) -> inspect.Signature:
    """Return the signature with one keyword per setting, which notebooks complete."""
    signature = inspect.signature(function)
    own = [one for one in signature.parameters.values() if one.kind is not one.VAR_KEYWORD]
    known = {one.name for one in own}
    derived = [
        inspect.Parameter(
            keyword,
            inspect.Parameter.KEYWORD_ONLY,
            default=...,  # the recipe's
            annotation=SECTIONS[section].model_fields[name].annotation,
        )
        for keyword, (section, name) in list_keywords().items()
        if keyword not in known
    ]
    return signature.replace(parameters=[*own, *derived])


train.__signature__ = _list_settings(train)  # type: ignore[attr-defined]


def _read_given(
    dataset: str | Path | Dataset | tuple[Any, Any] | None,
    test: tuple[Any, Any] | None,
    config: Config,
) -> Dataset | None:
    """Return the dataset that the caller holds, or None if it is named.

    Raises:
        ConfigError: There is a test set without a training set.
        DataError: The images or labels cannot be used.
    """
    if dataset is None or isinstance(dataset, str | Path | Dataset):
        if test is not None:
            raise ConfigError("test=(images, labels) needs images and labels to train on, too")
        return dataset if isinstance(dataset, Dataset) else None
    size, common = config.data.image_size, config.data.common_classes
    return Dataset.from_arrays(dataset, test, image_size=size, common_classes=common)


def run(
    config: Config,
    options: Options | None = None,
    reporter: Reporter | None = None,
    dataset: Dataset | None = None,
) -> TrainResult:
    """Train with a complete configuration, on the dataset that it names or on the given one.

    A worker that torchrun has restarted (`--max-restarts`) resumes its own run.

    Raises:
        VggnetError: `vggnet.errors` lists the kinds.
    """
    began, options, reporter = time.perf_counter(), options or Options(), reporter or Reporter()
    with open_session(options.timeout) as session:
        start = start_new(config, options, reporter.warned) if session.is_main else None
        return _execute(session.broadcast_object(start), options, session, reporter, dataset, began)


def resume_run(
    folder: Path | None,
    layers: Sequence[Mapping[str, Any]] = (),
    options: Options | None = None,
    reporter: Reporter | None = None,
    dataset: Dataset | None = None,
) -> TrainResult:
    """Resume a run from its latest complete checkpoint, as if it had never stopped.

    Args:
        folder: The run folder; default: `options.name`, or else the newest in `options.runs`.
        layers: Settings that override those of the run. Only settings that do not change the
            training are allowed; with a constant schedule, more epochs are.
        options: As in `run`.
        reporter: Is told of the progress, and of what has changed.
        dataset: The images of a run that was given a dataset, and not the name of one.

    Raises:
        RunFinishedError: The run is finished.
        CheckpointError: There is no complete checkpoint.
        ConfigError: A setting or the dataset would make it another training.
        VggnetError: `vggnet.errors` lists the other kinds.
    """
    began, options, reporter = time.perf_counter(), options or Options(), reporter or Reporter()
    with open_session(options.timeout) as session:
        start = start_from(folder, layers, options, reporter.warned) if session.is_main else None
        return _execute(session.broadcast_object(start), options, session, reporter, dataset, began)


def _execute(
    start: Start,
    options: Options,
    session: Session,
    reporter: Reporter,
    dataset: Dataset | None,
    began: float,
) -> TrainResult:
    schedule = CheckpointSchedule(options.checkpoint_every)
    plan = prepare(start, options, session, dataset)
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
        plan.dataset.classes,
        time.perf_counter() - began,
    )


def _open_folder(plan: Plan, options: Options) -> RunFolder:
    """Open the folder of the run that is resumed, or make a new one."""
    if plan.folder:
        return RunFolder.reopen(plan.folder, options.tensorboard)
    stem = f"{plan.config.recipe}-{plan.dataset.name}"
    return RunFolder.create(options.runs, options.name, stem, options.tensorboard, launch_id())
