"""A few own images train long enough, are validated, and may be imbalanced."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import vggnet as library
from conftest import Outcome
from vggnet.data.dataset import Dataset, LabeledImages, hold_out_tenth
from vggnet.errors import RunFinishedError
from vggnet.recipes import resolve_config

Command = Callable[..., Outcome]
SMALL = ("--stages", "8/8", "--hidden", "8", "--threads", "1", "--dataset", "few.npz")
VALIDATED = {"dataset": "few.npz"}


@pytest.fixture(autouse=True)
def few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mnist: Dataset) -> None:
    """Run in a folder with 60 images of 0, 40 of 1 and 6 of 2, a third of them for the test."""
    monkeypatch.chdir(tmp_path)
    train, test = [
        np.concatenate([np.flatnonzero(part.labels == label)[:count] for label, count in counts])
        for part, counts in (
            (mnist.train, enumerate((60, 40, 6))),
            (mnist.test, enumerate((30, 20, 3))),
        )
    ]
    np.savez(
        "few.npz",
        x_train=mnist.train.images[train, 0],
        y_train=mnist.train.labels[train],
        x_test=mnist.test.images[test, 0],
        y_test=mnist.test.labels[test],
    )


def read_metrics(run: str | Path) -> list[dict[str, str]]:
    """Return the rows of a run's table of epochs."""
    with (Path(run) / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_few_images_get_enough_steps_and_a_validation_split(vggnet: Command) -> None:
    """The first line names both, and the options that change them."""
    done = vggnet("train", *SMALL, "--min-steps", "20", "--name", "r")
    assert done.code == 0, done.err
    first = done.out.splitlines()[0]
    assert "20 epochs (20 steps: --min-steps) of 95 images, 11 held out for validation" in first
    assert "--validation-size" in first
    rows = read_metrics("runs/r")
    assert rows[-1]["step"] == "20"
    assert all(row["validation_loss"] for row in rows)


def test_epochs_are_exact_where_they_are_given() -> None:
    """The default minimum is that of `fast`; `--epochs` and recipes without one have none."""
    assert resolve_config({}).train.min_steps > 0
    assert resolve_config({}, {"train": {"epochs": 0.1}}).train.min_steps == 0
    assert resolve_config({}, {"train": {"epochs": 1, "min_steps": 7}}).train.min_steps == 7
    assert resolve_config({"recipe": "article"}).train.min_steps == 0


def test_the_validation_split_has_a_tenth_of_each_class() -> None:
    """It depends on the seed, and takes nothing from classes with fewer than five images."""
    labels = np.repeat([0, 1, 2, 3], [60, 14, 5, 4])
    images = np.arange(len(labels), dtype=np.uint8).reshape(-1, 1, 1, 1)
    examples = LabeledImages(images, labels, 5, "images")
    train, held = hold_out_tenth(examples, 0)
    assert held is not None
    assert np.bincount(held.labels, minlength=4).tolist() == [6, 1, 1, 0]
    assert sorted([*train.images.flat, *held.images.flat]) == list(range(83))
    again, other = hold_out_tenth(examples, 0)[1], hold_out_tenth(examples, 1)[1]
    assert again is not None
    assert other is not None
    assert np.array_equal(held.images, again.images)
    assert not np.array_equal(held.images, other.images)
    few = examples.take(np.arange(79, 83), "four images")
    assert hold_out_tenth(few, 0) == (few, None)


TRAIN = {"epochs": 12, "global_batch_size": 32, "threads": 1, "peak_lr": 0.1}
"""At this rate the validation loss is lowest in the sixth epoch."""
TINY = {"stages": ((8,), (8,)), "hidden": (8,), "dropout": 0.0}


def test_the_best_weights_are_kept_also_when_a_run_resumes() -> None:
    """The saved model has the lowest validation loss of all epochs, which was not the last."""
    result = library.train(
        recipe="article", model=TINY, data=VALIDATED, train={**TRAIN, "keep": "best"}, name="r"
    )
    losses = [score.loss for score in result.validations if score]
    assert min(losses) < losses[-1]
    _, held = hold_out_tenth(library.load_dataset("few.npz").train, 0)
    assert held is not None
    assert library.load(result.output).evaluate(held).loss == pytest.approx(min(losses), rel=1e-4)
    (Path("runs/r") / "test.json").unlink()  # as if it had been killed before the results
    again = library.train(resume="runs/r", output="again.pth")
    assert again.evaluation.loss == result.evaluation.loss


def test_patience_ends_a_run() -> None:
    """It stops so many epochs after the lowest validation loss, and is finished then."""
    result = library.train(
        recipe="article", model=TINY, data=VALIDATED, train={**TRAIN, "patience": 2}, name="r"
    )
    losses = [score.loss for score in result.validations if score]
    assert len(losses) < 12
    assert losses.index(min(losses)) == len(losses) - 3
    with pytest.raises(RunFinishedError, match="is finished"):
        library.train(resume="runs/r")


@pytest.mark.parametrize("flags", [("--patience", "3"), ("--keep", "best")])
def test_what_needs_validation_images_says_so(vggnet: Command, flags: tuple[str, ...]) -> None:
    """Without them it is an error, and nothing is written."""
    done = vggnet("train", *SMALL, "--validation-size", "0", *flags)
    assert done.code == 2
    assert f"{' '.join(flags[:1])}" in done.err
    assert "needs validation images: add --validation-size" in done.err
    assert [path.name for path in Path().iterdir()] == ["few.npz"]


def test_imbalanced_classes_are_shown_one_by_one(vggnet: Command) -> None:
    """The run warns, names the option, and reports what a mean over classes shows."""
    done = vggnet("train", *SMALL, "--epochs", "1", "--name", "r")
    assert done.code == 0, done.err
    assert "the classes are imbalanced: 60 training images of 0 and 6 of 2" in done.err
    assert "fewer than 30 test images of 1, 2:" in done.err
    assert "try --class-weights balanced" in done.out
    found = json.loads(Path("runs/r/test.json").read_text())
    recalls = [row["recall"] for row in found["per_class"]]
    assert found["balanced_accuracy"] == pytest.approx(sum(recalls) / 3)
    assert found["macro_f1"] == pytest.approx(sum(row["f1"] for row in found["per_class"]) / 3)
    line = re.search(r"balanced accuracy ([0-9.]+) %", done.out)
    assert line
    assert float(line[1]) == pytest.approx(100 * found["balanced_accuracy"], abs=0.01)
    done = vggnet("train", *SMALL, "--epochs", "1", "--class-weights", "balanced")
    assert "try --class-weights" not in done.out


def test_a_time_limit_ends_the_schedule_and_survives_an_interruption() -> None:
    """The learning rate ends near zero whatever the speed; a resumed run has the rest of it."""
    limit = {"minutes": 0.01, "threads": 1, "global_batch_size": 32}
    result = library.train(recipe="fast", model=TINY, data=VALIDATED, train=limit, name="r")
    rows = read_metrics(result.folder)
    assert max(float(row["lr"]) for row in rows) > 0.004
    assert float(rows[-1]["lr"]) < 0.001
    with pytest.raises(RunFinishedError, match="is finished"):
        library.train(resume=result.folder)


def test_only_mnist_grows() -> None:
    """The recipe fast lets images of MNIST grow, and trains longer on others, unless told to."""
    for layer, epochs, growth in (
        ({}, 0.55, 0.75),
        ({"data": {"dataset": "mnist"}, "train": {"epochs": 2}}, 2, 0.75),
        ({"data": {"dataset": "fashion-mnist"}}, 0.7, 0.0),
        ({"data": {"dataset": "few.npz"}, "train": {"growth_fraction": 0.5}}, 0.7, 0.5),
        ({"recipe": "finetune"}, 0.7, 0.0),
        ({"recipe": "best"}, 40, 0.0),
    ):
        train = resolve_config(layer).train
        assert (train.epochs, train.growth_fraction) == (epochs, growth)
    with np.load("few.npz") as arrays:
        given = arrays["x_train"], arrays["y_train"]
    result = library.train(given, model=TINY, min_steps=1, reporter=library.Reporter())
    assert result.config.train.growth_fraction == 0.0
