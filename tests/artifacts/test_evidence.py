"""An exported file is compared on the dataset of its model, or on noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vggnet.artifacts.export.evidence import choose_pixels, find_dataset
from vggnet.artifacts.model_card import ModelCard, build_card
from vggnet.data.storage import load_dataset
from vggnet.recipes import resolve_config


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Forty grey images of 8×8 in two classes, and a file that is no image."""
    random = np.random.default_rng(0)
    for number in range(40):
        path = tmp_path / "images" / ("dark", "light")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (8, 8), dtype=np.uint8)).save(path)
    (tmp_path / "images/dark/broken.png").write_bytes(b"no image")
    return tmp_path / "images"


@pytest.fixture
def card(folder: Path) -> ModelCard:
    """The description of a model trained on them with `--skip-bad`."""
    dataset = load_dataset(str(folder), skip_bad=True)
    config = resolve_config({"data": {"dataset": str(folder), "skip_bad": True}})
    return build_card(config, dataset.classes, dataset.shape, dataset.sha256, {}, None)


def test_the_models_own_images_are_found(card: ModelCard) -> None:
    """They are read as for training, without the unreadable one."""
    dataset = find_dataset(card, None)
    assert dataset is not None
    assert dataset.sha256 == card.dataset_sha256


def test_a_folder_that_has_changed_is_no_evidence(card: ModelCard, folder: Path) -> None:
    """A new image may change the test split, so noise is used instead."""
    Image.new("L", (8, 8)).save(folder / "light" / "new.png")
    assert find_dataset(card, None) is None
    pixels, name = choose_pixels(None, card.image_shape)
    assert pixels.shape == (1000, *card.image_shape)
    assert "was not found" in name


def test_another_class_is_no_evidence(card: ModelCard, folder: Path) -> None:
    """Without a hash, a class that the network does not have is noticed."""
    card = card.model_copy(update={"dataset_sha256": None})
    assert find_dataset(card, None) is not None
    (folder / "none").mkdir()
    for number in range(5):
        Image.new("L", (8, 8), number).save(folder / "none" / f"{number}.png")
    assert find_dataset(card, None) is None
