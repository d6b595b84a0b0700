"""The calls that growth.py measures: each function makes inputs of a size, and returns a call."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from vggnet.artifacts import plots
from vggnet.artifacts.model_card import ModelCard
from vggnet.artifacts.model_file import LoadedModel
from vggnet.artifacts.run_folder import RunFolder
from vggnet.artifacts.summary import summarize
from vggnet.config import Config
from vggnet.data.batches import Batches
from vggnet.data.dataset import LabeledImages
from vggnet.data.preprocessing import Preprocessing
from vggnet.data.storage import load_dataset
from vggnet.engine.calibration import fit_calibration
from vggnet.engine.evaluate import Evaluation, evaluate
from vggnet.engine.fit import EpochResult, build_state, fit
from vggnet.engine.session import Session
from vggnet.engine.typicality import fit_typicality
from vggnet.inference.predict import Classifier
from vggnet.inference.read import find_inputs, predict_items
from vggnet.inference.reading import Reading
from vggnet.model.vgg import build_network
from vggnet.recipes import resolve_config

CPU, BATCH, STEPS = torch.device("cpu"), 32, 6

DIFFERENT = 100
"""Image files that are made; the others are links to them."""

EPOCH = 100
"""Steps of an epoch in the tables and curves."""


@dataclass(frozen=True)
class Sizes:
    """The size of a task; a case varies one of them."""

    images: int = 1_000
    pixels: int = 28**2
    depth: int = 2
    classes: int = 10
    steps: int = 1_000
    processes: int = 1


Call = Callable[[], object]


def make_examples(sizes: Sizes) -> LabeledImages:
    """Return noise with labels; every class has images if there are enough."""
    generator, side = np.random.default_rng(0), math.isqrt(sizes.pixels)
    pixels = generator.integers(0, 256, (sizes.images, 1, side, side), np.uint8)
    return LabeledImages(pixels, np.arange(sizes.images) % sizes.classes, sizes.classes, "noise")


def make_evaluation(sizes: Sizes) -> Evaluation:
    """Return an evaluation with a third of errors."""
    generator = np.random.default_rng(0)
    logits = generator.random((sizes.images, sizes.classes), np.float32)
    labels = np.arange(sizes.images) % sizes.classes
    logits[np.arange(sizes.images), labels] += (generator.random(sizes.images) < 0.67).astype("f4")
    return Evaluation(logits, labels)


def make_config(sizes: Sizes) -> Config:
    """Return the recipe `fast` for a network with 16 channels in two stages."""
    model = {
        "stages": [[16] * (sizes.depth // 2)] * 2,
        "hidden": [64],
        "num_classes": sizes.classes,
        "image_size": math.isqrt(sizes.pixels),
    }
    train = {"global_batch_size": BATCH, "epochs": STEPS * BATCH / sizes.images}
    train["growth_fraction"] = 0.0
    return resolve_config({"model": model, "train": train})


def make_batches(sizes: Sizes, size: int, session: Session) -> Batches:
    preprocessing = Preprocessing((0.5,), (0.5,), math.isqrt(sizes.pixels))
    ranks = {"rank": session.rank, "world_size": session.world_size}
    return Batches(make_examples(sizes), CPU, preprocessing, batch_size=size, **ranks)


def prepare_training(sizes: Sizes, folder: Path, session: Session) -> Call:
    """Take six steps of 32 images."""
    config, batches = make_config(sizes), make_batches(sizes, BATCH, session)
    state = build_state(build_network(config.model, 0), config.train, CPU, session)
    return lambda: list(fit(state, batches))


def prepare_epoch(sizes: Sizes, folder: Path, session: Session) -> Call:
    examples, preprocessing = make_examples(sizes), Preprocessing((0.5,), (0.5,), 28)
    return lambda: next(Batches(examples, CPU, preprocessing, batch_size=BATCH).shuffled(0, 0))


def prepare_evaluating(sizes: Sizes, folder: Path, session: Session) -> Call:
    network = build_network(make_config(sizes).model, 0)
    batches = make_batches(sizes, 128, session)
    return lambda: evaluate(network, batches, session).describe()


def write_images(sizes: Sizes, folder: Path) -> Path:
    """Write noise as PNG files, in a folder for each class."""
    examples = make_examples(replace(sizes, images=min(DIFFERENT, sizes.images)))
    paths = [folder / f"{at % sizes.classes}" / f"{at:07}.png" for at in range(sizes.images)]
    for path in paths[: sizes.classes]:
        path.parent.mkdir()
    for at, path in enumerate(paths):
        if at < DIFFERENT:
            Image.fromarray(examples.images[at, 0]).save(path)
        else:
            path.hardlink_to(paths[at % DIFFERENT])
    return folder


def prepare_reading(sizes: Sizes, folder: Path, session: Session) -> Call:
    write_images(sizes, folder)
    return lambda: load_dataset(folder, cache=False)


def prepare_predicting(sizes: Sizes, folder: Path, session: Session) -> Call:
    """Predict each file of a folder, as `vggnet predict` does."""
    write_images(replace(sizes, classes=1), folder)
    side, names = math.isqrt(sizes.pixels), tuple(f"class {at}" for at in range(sizes.classes))
    card = ModelCard(classes=names, image_shape=(1, side, side))
    model = Classifier(LoadedModel(build_network(make_config(sizes).model, 0).eval(), card), "cpu")

    def predict() -> None:
        for _ in predict_items(model, find_inputs([folder]).items, Reading.FITTED, 3):
            pass

    return predict


def prepare_calibrating(sizes: Sizes, folder: Path, session: Session) -> Call:
    found = make_evaluation(sizes)
    return lambda: fit_calibration(found.logits, found.labels)


def prepare_typicality(sizes: Sizes, folder: Path, session: Session) -> Call:
    values = [torch.rand(sizes.images, 128, generator=torch.Generator().manual_seed(0))]
    labels = np.arange(sizes.images) % sizes.classes
    return lambda: fit_typicality(values, labels, values)


def prepare_matrix(sizes: Sizes, folder: Path, session: Session) -> Call:
    found, names = make_evaluation(sizes), [f"class {at}" for at in range(sizes.classes)]
    return lambda: plots.render_confusion_matrix(folder / "matrix.png", found, names)


def prepare_mistakes(sizes: Sizes, folder: Path, session: Session) -> Call:
    examples, found = make_examples(sizes), make_evaluation(sizes)
    names = [f"class {at}" for at in range(sizes.classes)]
    path = folder / "mistakes.png"
    return lambda: plots.render_mistakes(path, examples.images, found, names)


def prepare_summary(sizes: Sizes, folder: Path, session: Session) -> Call:
    found, names = make_evaluation(sizes), tuple(f"class {at}" for at in range(sizes.classes))
    run = RunFolder(folder)
    return lambda: run.write_json("test.json", summarize(found, names))


def make_epochs(sizes: Sizes) -> list[EpochResult]:
    losses = np.random.default_rng(0).random((sizes.steps // EPOCH, EPOCH)).tolist()
    ends = range(EPOCH, sizes.steps + 1, EPOCH)
    figures = {"images": EPOCH * BATCH, "loss": 0.5, "accuracy": 0.5, "lr": 0.1, "seconds": 1.0}
    return [
        EpochResult(end / EPOCH, end, **figures, step_losses=one, step_accuracies=one)
        for end, one in zip(ends, losses, strict=True)
    ]


def prepare_tables(sizes: Sizes, folder: Path, session: Session) -> Call:
    epochs, run = make_epochs(sizes), RunFolder(folder)
    return lambda: run.write_epochs(epochs, [None] * len(epochs))


def prepare_curves(sizes: Sizes, folder: Path, session: Session) -> Call:
    epochs, found = make_epochs(sizes), make_evaluation(sizes)
    nothing = [None] * len(epochs)
    return lambda: plots.render_curves(folder / "curves.png", epochs, nothing, found, 0.0)


CALLS: dict[str, Callable[[Sizes, Path, Session], Call]] = {
    "training, 6 steps": prepare_training,
    "start of an epoch": prepare_epoch,
    "evaluation": prepare_evaluating,
    "reading a folder": prepare_reading,
    "predicting a folder": prepare_predicting,
    "calibration": prepare_calibrating,
    "typicality": prepare_typicality,
    "confusion_matrix.png": prepare_matrix,
    "mistakes.png": prepare_mistakes,
    "test.json": prepare_summary,
    "metrics.csv, steps.csv": prepare_tables,
    "curves.png": prepare_curves,
}
