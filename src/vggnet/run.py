"""Composition: settings to data, to a network, to training, to the files it leaves."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vggnet.artifacts.atomic import check_writable
from vggnet.artifacts.model_file import ModelCard, build_card, check_suffix, save_model
from vggnet.artifacts.pictures import render_confusion_matrix, render_curves, render_mistakes
from vggnet.artifacts.run_folder import RunFolder
from vggnet.artifacts.summary import headline, summarize
from vggnet.config import Config
from vggnet.data.batches import Batches
from vggnet.data.dataset import Dataset, LabeledImages, hold_out
from vggnet.data.storage import load_dataset
from vggnet.engine.device import (
    accelerated,
    check_precision,
    choose_device,
    computing,
    usable_cores,
)
from vggnet.engine.environment import describe_environment
from vggnet.engine.evaluate import Evaluation, evaluate
from vggnet.engine.fit import EpochResult, TrainState, build_state, fit
from vggnet.engine.schedule import count_steps
from vggnet.engine.session import Session, open_session
from vggnet.errors import (
    ConfigError,
    InterruptedTrainingError,
    OutputError,
    TrainingDivergedError,
)
from vggnet.inference.predict import BATCH_SIZE
from vggnet.model.folding import fold_batch_norm
from vggnet.model.vgg import VGG, build_network, padded_size
from vggnet.recipes import DEFAULT_RECIPE, resolve_config


@dataclass(frozen=True)
class TrainResult:
    """What a run came to."""

    evaluation: Evaluation
    """Of the weights as they are saved, on the test set, which is read this once."""
    epochs: list[EpochResult]
    config: Config
    output: Path
    """The model file."""
    folder: Path
    """Everything else that the run left."""
    seconds: float
    """From the call to the last file written."""

    @property
    def accuracy(self) -> float:
        """Share of the test pictures classified right, 0 to 1."""
        return self.evaluation.accuracy


class Reporter:
    """What a run tells while it goes on; this one keeps silent."""

    def started(self, plan: Plan) -> None:
        """Everything is loaded, and training begins."""

    def stepped(self, step: int, total: int) -> None:
        """One more step was handed to the device."""

    def epoch_ended(self, result: EpochResult, validation: Evaluation | None) -> None:
        """An epoch is complete."""

    def warned(self, message: str) -> None:
        """Something was lost that the run can go on without."""


@dataclass(frozen=True)
class Plan:
    """What is settled before the first step."""

    config: Config
    """Complete: classes, channels and image size are the data's."""
    dataset: Dataset
    train: LabeledImages
    """The pictures to learn from."""
    validation: LabeledImages | None
    """Those held out, if any."""
    device: torch.device
    session: Session
    threads: int
    folder: Path
    output: Path


def train(
    recipe: str = DEFAULT_RECIPE,
    *,
    output: str | Path | None = None,
    runs: str | Path = "runs",
    name: str | None = None,
    reporter: Reporter | None = None,
    **settings: dict[str, Any],
) -> TrainResult:
    """Train a network, evaluate it on the test set, and save it.

    Args:
        recipe: The named configuration to start from: "fast" or "article".
        output: The model file, `.pth` or `.safetensors`; by default
            `<dataset>_vggnet.pth` in the current folder.
        runs: The folder under which the run makes its own.
        name: The run's name; made up from recipe, dataset and time by default.
        reporter: Told of the progress.
        settings: `model`, `data` and `train`: values to lay over the recipe's, for
            example `train={"epochs": 2, "seed": 1}`.

    Raises:
        VggnetError: Of the kind that says what was wrong; see `vggnet.errors`.
    """
    config = resolve_config({"recipe": recipe}, settings)
    return run(config, output=output, runs=runs, name=name, reporter=reporter)


def run(
    config: Config,
    *,
    output: str | Path | None = None,
    runs: str | Path = "runs",
    name: str | None = None,
    reporter: Reporter | None = None,
    tensorboard: bool = False,
) -> TrainResult:
    """Train as a complete configuration says; the rest is as in `train`."""
    started = time.perf_counter()
    output = Path(output or f"{config.data.dataset}_vggnet.pth")
    check_suffix(output)
    check_writable(output)
    device = choose_device(config.train.device, int(os.environ.get("LOCAL_RANK", "0")))
    check_precision(config.train.precision, device)
    with open_session(device.type) as session:
        dataset = load_dataset(config.data.dataset, config.data.data_dir)
        config = fit_to_data(config, dataset, session)
        pictures = hold_out(dataset.train, config.data.validation_size, config.train.seed)
        threads = config.train.threads or max(1, usable_cores() // session.local_world_size)
        folder = None
        if session.is_main:
            folder = RunFolder(Path(runs), name, f"{config.recipe}-{dataset.name}", tensorboard)
        path = Path(session.share(str(folder.path) if folder else ""))
        plan = Plan(config, dataset, *pictures, device, session, threads, path, output)
        with (
            computing(config.train.precision, threads),
            _own_random_numbers(device, config.train.seed),
        ):
            evaluation, epochs = _Run(plan, folder, reporter or Reporter()).carry_out()
    seconds = time.perf_counter() - started
    return TrainResult(evaluation, epochs, config, output, path, seconds)


def fit_to_data(config: Config, dataset: Dataset, session: Session) -> Config:
    """Complete a configuration with what the data decide.

    Raises:
        ConfigError: A batch is smaller than the number of processes.
    """
    if config.train.global_batch_size < session.world_size:
        raise ConfigError(
            f"batch size {config.train.global_batch_size} does not divide over "
            f"{session.world_size} processes; use at least {session.world_size}"
        )
    channels, height, width = dataset.shape
    model = config.model.model_copy(
        update={
            "in_channels": channels,
            "num_classes": len(dataset.classes),
            "image_size": padded_size(config.model, max(height, width)),
        }
    )
    return config.model_copy(update={"model": model})


class _Run:
    """One run, from initial weights to the last file.

    Args:
        plan: What to do.
        folder: Where to leave things; None on all but the main process.
        reporter: Told of the progress.
    """

    def __init__(self, plan: Plan, folder: RunFolder | None, reporter: Reporter) -> None:
        self.plan, self.folder, self.reporter = plan, folder, reporter
        config = plan.config
        network = build_network(config.model, config.train.seed)
        self.state = build_state(network, config.train, plan.device, plan.session)
        self.epochs: list[EpochResult] = []
        self.validations: list[Evaluation | None] = []
        self.environment = describe_environment()

    def carry_out(self) -> tuple[Evaluation, list[EpochResult]]:
        """Train, evaluate on the test set, save."""
        plan = self.plan
        if self.folder:
            self.folder.write_json("config.json", plan.config.model_dump(mode="json"))
            self.folder.write_json("environment.json", self.environment)
        self.reporter.started(plan)
        self._fit()
        network = fold_batch_norm(self.state.network.eval())
        test = self._batches(plan.dataset.test, BATCH_SIZE)
        replica = accelerated(network, plan.config.train.kernels)
        evaluation = evaluate(replica, test, plan.session)
        if self.folder:
            self._save(network, evaluation, self.folder)
            self._draw(evaluation, self.folder)
        return evaluation, self.epochs

    def _batches(self, pictures: LabeledImages, batch_size: int) -> Batches:
        config, session = self.plan.config, self.plan.session
        return Batches(
            pictures,
            self.plan.device,
            batch_size=batch_size,
            mean=config.data.mean,
            std=config.data.std,
            size=config.model.image_size,
            rank=session.rank,
            world_size=session.world_size,
        )

    def _fit(self) -> None:
        """Train to the end; when that is cut short, keep what was learnt."""
        plan, settings = self.plan, self.plan.config.train
        batches = self._batches(plan.train, settings.global_batch_size)
        validation = self._batches(plan.validation, BATCH_SIZE) if plan.validation else None
        total = count_steps(settings.epochs, len(batches))
        last_good = None
        with _stop_requests() as stop_requested:

            def on_step(state: TrainState) -> None:
                self.reporter.stepped(state.step, total)
                if stop_requested() and state.step < total:
                    raise InterruptedTrainingError(state.step)

            try:
                for result in fit(self.state, batches, on_step):
                    self._record(result, validation)
                    last_good = {k: v.clone() for k, v in self.state.network.state_dict().items()}
            except InterruptedTrainingError as error:
                self._keep(error)
                raise
            except TrainingDivergedError as error:
                if last_good:
                    self.state.network.load_state_dict(last_good)
                    self._keep(error)
                raise

    def _record(self, result: EpochResult, validation: Batches | None) -> None:
        found = evaluate(self.state.replica, validation, self.plan.session) if validation else None
        self.epochs.append(result)
        self.validations.append(found)
        self.reporter.epoch_ended(result, found)
        if folder := self.folder:
            self._try(lambda: folder.write_epoch(result, found))

    def _keep(self, error: InterruptedTrainingError | TrainingDivergedError) -> None:
        """Save the weights that the network has now, and say so in the error."""
        if self.folder:
            path = self.folder.path / "model.safetensors"
            network = fold_batch_norm(self.state.network.eval())
            save_model(path, network, self._card(None))
            when = f"after epoch {self.epochs[-1].epoch:g} " if self.epochs else ""
            if isinstance(error, InterruptedTrainingError):
                when = "so far "
            error.args = (f"{error}; the weights {when}are in {path}",)

    def _card(self, evaluation: Evaluation | None) -> ModelCard:
        dataset = self.plan.dataset
        return build_card(
            self.plan.config,
            dataset.classes,
            dataset.shape,
            dataset.sha256,
            self.environment,
            None if evaluation is None else headline(evaluation),
        )

    def _save(self, network: VGG, evaluation: Evaluation, folder: RunFolder) -> None:
        """Write the model to both places, so that one full disk does not cost it."""
        card = self._card(evaluation)
        failures = []
        saved = []
        for path in (folder.path / "model.safetensors", self.plan.output):
            try:
                save_model(path, network, card)
                saved.append(path)
            except OutputError as error:
                failures.append(str(error))
        if failures:
            where = f"; the trained weights are in {saved[0]}" if saved else ""
            raise OutputError("; ".join(failures) + where)

    def _draw(self, evaluation: Evaluation, folder: RunFolder) -> None:
        """Leave figures and pictures; what the disk does not take is a warning."""
        dataset, path = self.plan.dataset, folder.path
        images, classes = dataset.test.images, dataset.classes
        test = summarize(evaluation, classes)
        smoothing = self.plan.config.train.label_smoothing
        for write in (
            lambda: folder.write_json("test.json", test),
            lambda: render_curves(
                path / "curves.png", self.epochs, self.validations, evaluation, smoothing
            ),
            lambda: render_confusion_matrix(path / "confusion_matrix.png", evaluation, classes),
            lambda: render_mistakes(path / "mistakes.png", images, evaluation, classes),
        ):
            self._try(write)

    def _try(self, write: Callable[[], None]) -> None:
        try:
            write()
        except OutputError as error:
            self.reporter.warned(str(error))


@contextmanager
def _own_random_numbers(device: torch.device, seed: int) -> Iterator[None]:
    """Seed torch for the time of a run, and give the caller's generators back after."""
    kind = device.type if device.type in ("cuda", "xpu") else "cuda"
    devices = [device] if device.type in ("cuda", "xpu") else []
    with torch.random.fork_rng(devices, device_type=kind):
        torch.manual_seed(seed)
        yield


@contextmanager
def _stop_requests() -> Iterator[Callable[[], bool]]:
    """Turn the first SIGINT or SIGTERM into a request; the second one acts at once.

    Only Python's main thread receives signals; in any other nothing is changed.
    """
    requested = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield requested.is_set
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def request(number: int, frame: object) -> None:
        requested.set()
        signal.signal(number, signal.default_int_handler)

    for number in before:
        signal.signal(number, request)
    try:
        yield requested.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
