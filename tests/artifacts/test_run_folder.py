"""Run folders are made anew, and their tables hold what happened."""

from __future__ import annotations

import csv
import io
import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vggnet.artifacts.plots import (
    render_confusion_matrix,
    render_curves,
    render_mistakes,
    render_sheet,
)
from vggnet.artifacts.run_folder import RunFolder, find_newest
from vggnet.artifacts.summary import summarize
from vggnet.engine.evaluate import Evaluation
from vggnet.engine.fit import EpochResult
from vggnet.errors import ConfigError, OutputError

RESULT = EpochResult(
    epoch=1.0,
    step=3,
    images=300,
    loss=0.5,
    accuracy=0.75,
    lr=1e-3,
    seconds=2.0,
    step_losses=[0.7, 0.5, 0.3],
    step_accuracies=[0.5, 0.75, 1.0],
)
EVALUATION = Evaluation(
    np.random.default_rng(0).normal(size=(60, 10)).astype(np.float32), np.arange(60) % 10
)
CLASSES = tuple("0123456789")


def test_no_run_overwrites_another(tmp_path: Path) -> None:
    """Made-up names never collide, and a given name is refused when it is taken."""
    paths = {RunFolder.create(tmp_path, None, "fast").path for _ in range(5)}
    assert len(paths) == 5
    RunFolder.create(tmp_path, "mine", "fast")
    with pytest.raises(ConfigError, match="mine exists"):
        RunFolder.create(tmp_path, "mine", "fast")


def test_a_run_that_goes_on_is_left_alone(tmp_path: Path) -> None:
    """While one holds a folder no other can open it; afterwards it can."""
    folder = RunFolder.create(tmp_path, "run", "fast")
    with pytest.raises(ConfigError, match="is in use"):
        RunFolder(folder.path)
    folder.close()
    RunFolder(folder.path).close()


def test_the_newest_run_is_found(tmp_path: Path) -> None:
    """Of all runs, or of one launch of torchrun; what is no run is none."""
    assert find_newest(tmp_path / "nowhere") is None
    (tmp_path / "stray").mkdir()
    assert find_newest(tmp_path) is None
    for age, name in enumerate("bca"):
        folder = RunFolder.create(tmp_path, name, "fast", launch="first" if name == "b" else "next")
        for file in ("config.json", "launch.json"):
            (folder.path / file).touch()
            os.utime(folder.path / file, (age, age))
    assert find_newest(tmp_path) == tmp_path / "a"
    assert find_newest(tmp_path, "first") == tmp_path / "b"
    assert find_newest(tmp_path, "another") is None


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../a"])
def test_names_that_lead_elsewhere_are_refused(tmp_path: Path, name: str) -> None:
    """A run's folder lies in the folder of runs."""
    with pytest.raises(ConfigError, match="not a folder name"):
        RunFolder.create(tmp_path, name, "fast")


def test_a_file_in_the_way_is_an_error(tmp_path: Path) -> None:
    """Where `runs` is a file nothing can be made."""
    (tmp_path / "runs").touch()
    with pytest.raises(OutputError, match="cannot make"):
        RunFolder.create(tmp_path / "runs", None, "fast")


def test_tables_hold_epochs_and_steps(tmp_path: Path) -> None:
    """metrics.csv has a row an epoch, steps.csv a row a step, counted from 1."""
    folder = RunFolder.create(tmp_path, "run", "fast")
    folder.write_epochs([RESULT], [None])
    folder.write_epochs([RESULT, RESULT], [None, EVALUATION])
    rows = list(csv.DictReader(io.StringIO((folder.path / "metrics.csv").read_text())))
    assert [row["epoch"] for row in rows] == ["1", "1"]
    assert float(rows[0]["images_per_second"]) == 150
    assert rows[0]["validation_accuracy"] == ""
    assert float(rows[1]["validation_accuracy"]) == pytest.approx(EVALUATION.accuracy, abs=1e-6)
    steps = list(csv.DictReader(io.StringIO((folder.path / "steps.csv").read_text())))
    assert [(row["step"], float(row["loss"])) for row in steps[:3]] == [
        ("1", 0.7),
        ("2", 0.5),
        ("3", 0.3),
    ]


@pytest.mark.usefixtures("drawing")
def test_images_are_drawn(tmp_path: Path) -> None:
    """Each is a PNG of a readable size with more than one colour in it."""
    images = np.random.default_rng(0).integers(0, 256, (60, 1, 28, 28), np.uint8)
    colour = np.repeat(images, 3, axis=1)
    right = Evaluation(np.eye(10, dtype=np.float32), np.arange(10))
    long_names = [f"a rather long name {number}" for number in range(10)]
    render_curves(tmp_path / "curves.png", [RESULT], [EVALUATION], EVALUATION, 0.1)
    render_confusion_matrix(tmp_path / "matrix.png", EVALUATION, long_names)
    render_mistakes(tmp_path / "mistakes.png", images, EVALUATION, CLASSES)
    render_mistakes(tmp_path / "none.png", images[:10], right, CLASSES)
    render_sheet(tmp_path / "sheet.png", colour[:9], list("abcdefghi"), "colour")
    for name in ("curves", "matrix", "mistakes", "none", "sheet"):
        with Image.open(tmp_path / f"{name}.png") as image:
            assert min(image.size) >= 200
            assert len(image.convert("L").getcolors() or []) > 1


@pytest.mark.usefixtures("drawing")
def test_errors_of_many_classes_are_drawn_without_a_matrix(tmp_path: Path) -> None:
    """That of 100,000 classes would take 80 GB."""
    names = [f"class number {number} with a name that is very long" for number in range(100_000)]
    for count, name in ((50, "errors"), (0, "none")):
        logits = np.zeros((60, 100_000), np.float32)
        logits[np.arange(60), np.r_[np.arange(count) * 2, np.arange(count, 60)]] = 1
        render_confusion_matrix(tmp_path / name, Evaluation(logits, np.arange(60)), names)
        with Image.open(tmp_path / name) as image:
            assert 100 < min(image.size) <= max(image.size) < 2_000


@pytest.mark.usefixtures("drawing")
def test_the_curve_of_many_steps_is_drawn(tmp_path: Path) -> None:
    """Of a million noisy values, and of a single one."""
    for count in (1, 1_000_000):
        losses = np.random.default_rng(0).random(count).tolist()
        long = replace(RESULT, step=count, step_losses=losses, step_accuracies=losses)
        render_curves(tmp_path / "curves.png", [long], [None], EVALUATION, 0.1)
        with Image.open(tmp_path / "curves.png") as image:
            assert min(image.size) > 400


@pytest.mark.parametrize("classes", [1_000, 1_001])
def test_the_summary_has_a_matrix_of_up_to_1000_classes(classes: int) -> None:
    """Of more it has the errors, the most frequent first, and null in place of the matrix."""
    logits = np.zeros((5, classes), np.float32)
    logits[np.arange(5), [0, 1, 1, 1, 999]] = 1
    found = summarize(
        Evaluation(logits, np.array([0, 2, 2, 1, 0])), tuple(map(str, range(classes)))
    )
    if classes <= 1_000:
        assert "confused_pairs" not in found
        assert [row[:3] for row in found["confusion_matrix"][:3]] == [
            [1, 0, 0],
            [0, 1, 0],
            [0, 2, 0],
        ]
    else:
        assert found["confusion_matrix"] is None
        pairs = {"true": [2, 0], "predicted": [1, 999], "images": [2, 1]}
        assert found["confused_pairs"] == pairs
    assert found["per_class"][2]["count"] == 2


@pytest.mark.usefixtures("drawing")
def test_names_are_drawn_as_they_are_written(tmp_path: Path) -> None:
    """A class called "$^$" is no formula, which matplotlib would refuse to draw."""
    images = np.zeros((2, 1, 8, 8), np.uint8)
    wrong = Evaluation(np.eye(2, dtype=np.float32), np.array([1, 0]))
    render_mistakes(tmp_path / "mistakes.png", images, wrong, ("cost_$", "cost_^$"))
    render_confusion_matrix(tmp_path / "matrix.png", wrong, ("$^$", "$_$"))
    render_sheet(tmp_path / "sheet.png", images, ["$^$", "$_$"], "$^$")
    assert len(list(tmp_path.iterdir())) == 3


def test_a_time_in_the_future_is_not_the_newest(tmp_path: Path) -> None:
    """After the clock was set back, the run that started last is still found."""
    for name, seconds in (("past", -1000), ("recent", -10), ("future", 10**7)):
        folder = RunFolder.create(tmp_path, name, "fast")
        (folder.path / "config.json").touch()
        now = time.time() + seconds
        os.utime(folder.path / "config.json", (now, now))
    assert find_newest(tmp_path) == tmp_path / "recent"
    (tmp_path / "past" / "config.json").unlink()
    (tmp_path / "recent" / "config.json").unlink()
    assert find_newest(tmp_path) == tmp_path / "future"
