"""Which files are read as images, and what becomes of those that cannot be."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vggnet
from vggnet.artifacts.model_card import ModelCard
from vggnet.artifacts.model_file import save_model
from vggnet.config import ModelConfig
from vggnet.data.matching import TrainedOn
from vggnet.inference.read import choose_reading, find_inputs, predict_items
from vggnet.inference.reading import Reading
from vggnet.model.vgg import build_network


@pytest.fixture
def classifier(tmp_path: Path) -> vggnet.Classifier:
    """An untrained network that takes MNIST's images."""
    config = ModelConfig(stages=((4,), (8,)), hidden=(4,))
    card = ModelCard(classes=tuple("abcdefghij"), image_shape=(1, 28, 28))
    save_model(tmp_path / "model.pth", build_network(config, 0), card)
    return vggnet.load(tmp_path / "model.pth", kernels="torch")


def draw(path: Path) -> Path:
    """Write an image, and the folder that it is in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.arange(28 * 28, dtype=np.uint8).reshape(28, 28)).save(path, "PNG")
    return path


@pytest.mark.parametrize(
    ("dataset", "classes", "image", "reading"),
    [
        (None, "0123456789", (1, 28, 28), Reading.DRAWN),
        ("mnist", "0123456789", (1, 28, 28), Reading.DRAWN),
        ("kmnist", ("o", "ki"), (1, 28, 28), Reading.DRAWN),
        ("fashion-mnist", ("Bag", "Coat"), (1, 28, 28), Reading.FITTED),
        ("drawings.zip", "0123456789", (1, 28, 28), Reading.DRAWN),
        ("drawings.zip", ("cat", "dog"), (1, 28, 28), Reading.FITTED),
        ("scans", "0123456789", (1, 32, 32), Reading.FITTED),
        ("scans", "12", (3, 28, 28), Reading.FITTED),
    ],
)
def test_images_are_prepared_as_those_learnt_were(
    dataset: str | None,
    classes: Sequence[str],
    image: tuple[int, int, int],
    reading: Reading,
) -> None:
    """Characters in MNIST's form are drawn again; a folder of any other images was fitted."""
    assert choose_reading(TrainedOn(tuple(classes), image, dataset)) is reading


def test_a_folder_is_read_by_the_rule_of_training(tmp_path: Path) -> None:
    """Not what systems put into folders, nor a folder that is called like an image."""
    for name in ("._a.png", ".cache/a.png", "__MACOSX/a.png", "more/._b.png"):
        draw(tmp_path / name)
    shown = [draw(tmp_path / name) for name in ("a.png", "b.PNG", "c.png/d.png", "more/b.png")]
    assert [item.path for item in find_inputs([tmp_path]).items] == [str(path) for path in shown]


def test_a_hidden_image_may_be_named(tmp_path: Path) -> None:
    """Only within a folder are they passed over."""
    named = [draw(tmp_path / ".a.png"), draw(tmp_path / ".more" / "b.png")]
    found = find_inputs([named[0], named[1].parent]).items
    assert [item.path for item in found] == [str(path) for path in named]


def test_a_name_too_long_for_the_disk_costs_no_other_answer(
    classifier: vggnet.Classifier, tmp_path: Path
) -> None:
    """It is a problem of its own, as a file that is not there."""
    paths = [Path(300 * "x"), draw(tmp_path / "a.png")]
    results = list(predict_items(classifier, find_inputs(paths).items, Reading.FITTED, 1))
    assert [result.problem for result in results] == ["File name too long", None]
