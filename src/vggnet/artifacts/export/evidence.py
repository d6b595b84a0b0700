"""Images on which an exported file is compared with its network."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from vggnet.artifacts.export.program import Pixels
from vggnet.artifacts.model_card import ModelCard
from vggnet.data.dataset import Dataset
from vggnet.data.storage import load_dataset
from vggnet.errors import ConfigError, DataError

T = TypeVar("T", bound=np.generic)

IMAGES = 1_000


def find_dataset(card: ModelCard, data_dir: Path | None) -> Dataset | None:
    """Return the dataset that a model was trained on, if it is on this machine.

    A dataset of the same name with other content does not count: a folder may have changed,
    and its test images may then be images that the model was trained on.

    Raises:
        ConfigError: `data_dir` is given, and the model's dataset has no known name.
        DataError: `data_dir` is given, and the dataset is not there.
    """
    settings = card.data.model_dump(exclude_none=True)
    try:
        dataset = load_dataset(data_dir=data_dir, download=False, **settings)
    except (ConfigError, DataError):
        if data_dir is not None:
            raise
        return None
    same = card.dataset_sha256 in (None, dataset.sha256)
    fits = (dataset.shape, dataset.classes) == (card.image_shape, card.classes)
    return dataset if same and fits else None


def choose_pixels(dataset: Dataset | None, image_shape: tuple[int, int, int]) -> tuple[Pixels, str]:
    """Return images from all over the test set, and what to call them.

    Without a dataset they are noise, uint8, (1000, *image_shape).
    """
    if dataset:
        return every_nth(dataset.test.images, IMAGES), f"{dataset.name} test images"
    noise = np.random.default_rng(0).integers(0, 256, (IMAGES, *image_shape), dtype=np.uint8)
    return noise, "images of noise (the dataset was not found)"


def every_nth(images: npt.NDArray[T], count: int) -> npt.NDArray[T]:
    """Return at most `count` images at equal distances: folders are sorted by class."""
    return images[:: max(1, len(images) // count)][:count]
