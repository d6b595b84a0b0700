"""The images that an exported file is judged by."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vggnet.artifacts.export.program import Pixels
from vggnet.artifacts.model_file import ModelCard
from vggnet.data.dataset import Dataset
from vggnet.data.storage import load_dataset
from vggnet.errors import ConfigError, DataError

IMAGES = 1_000


def find_dataset(card: ModelCard, data_dir: Path | None) -> Dataset | None:
    """Return the dataset that a model was trained on, where it is on this machine.

    Not another one of its name: a folder may have changed since, and then hold images to
    test with that the model has learnt.

    Raises:
        ConfigError: `data_dir` is named, and the model's dataset is none that is known.
        DataError: It is not in `data_dir`.
    """
    data = (card.config or {}).get("data", {})
    name, size = data.get("dataset", "mnist"), data.get("image_size")
    try:
        dataset = load_dataset(
            name,
            data_dir,
            download=False,
            image_size=size,
            skip_bad=data.get("skip_bad", False),
        )
    except (ConfigError, DataError):
        if data_dir is not None:
            raise
        return None
    same = card.dataset_sha256 in (None, dataset.sha256)
    fits = (dataset.shape, dataset.classes) == (card.image_shape, card.classes)
    return dataset if same and fits else None


def choose_pixels(dataset: Dataset | None, image_shape: tuple[int, int, int]) -> tuple[Pixels, str]:
    """Return images to compare answers on, from all over the test set, and their name.

    Without a dataset they are noise, uint8, (1000, *image).
    """
    if dataset:
        return spread_over(dataset.test.images, IMAGES), f"{dataset.name} test images"
    noise = np.random.default_rng(0).integers(0, 256, (IMAGES, *image_shape), dtype=np.uint8)
    return noise, "images of noise (the dataset is not at hand)"


def spread_over(images: Pixels, count: int) -> Pixels:
    """Return at most `count` images at equal distances: a folder's are sorted by class."""
    return images[:: max(1, len(images) // count)][:count]
