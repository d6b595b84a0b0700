"""Images to evaluate a model on, labelled by the model's own classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vggnet.data.catalog import CATALOG
from vggnet.data.dataset import LabeledImages
from vggnet.data.folder import is_folder, read_folder
from vggnet.data.storage import find_entry, load_test
from vggnet.errors import ConfigError, DataError


@dataclass(frozen=True)
class Learnt:
    """What a model was trained on."""

    classes: tuple[str, ...]
    image_shape: tuple[int, int, int]
    """Channels, height and width."""
    dataset: str | None = None
    """Name or folder; None where the model does not say, and its classes are mere numbers."""
    sha256: str | None = None
    """The dataset's, to know it again."""


def load_to_evaluate(
    name: str,
    learnt: Learnt,
    data_dir: Path | None = None,
    *,
    download: bool = True,
    skip_bad: bool = False,
) -> tuple[LabeledImages, tuple[str, ...]]:
    """Load what a model is to be evaluated on, and what should be known of it.

    That is the test set; of a folder without one, the images that were held out if the
    model was trained on it, and all of them if it was not. Classes are matched by name, and
    the folder may lack some.

    Args:
        name: As `load_dataset` takes it.
        learnt: By the model; a folder's images are fitted to its size and channels.
        data_dir, download, skip_bad: As `load_dataset` takes them.

    Raises:
        ConfigError: As `load_dataset`.
        DataError: A class is not the model's, or as `load_dataset`.
    """
    if not is_folder(name):
        test = load_test(name, data_dir, download=download)
        return _relabel(test, find_entry(name).classes, learnt), ()
    if data_dir is not None:
        raise ConfigError(f"{name} is a folder itself; leave --data-dir out")
    channels, *sides = learnt.image_shape
    found = read_folder(Path(name), channels=channels, image_size=max(sides), skip_bad=skip_bad)
    warnings = found.warnings
    trained_on_it = found.sha256 == learnt.sha256
    first = found.train_size if found.own_test or trained_on_it else 0
    part = "all of it" if not first else "test set" if found.own_test else "held-out sixth"
    if not first and learnt.dataset is not None and _is_same_place(name, learnt.dataset):
        warnings += (
            f"{name} has changed since the model was trained on it; images that it was trained "
            "on are among these",
        )
    examples = LabeledImages(
        found.images[first:], found.labels[first:], len(found.classes), f"{name}, {part}"
    )
    return _relabel(examples, found.classes, learnt), warnings


def _is_same_place(one: str, other: str) -> bool:
    return other not in CATALOG and Path(one).resolve() == Path(other).resolve()


def _relabel(examples: LabeledImages, classes: Sequence[str], learnt: Learnt) -> LabeledImages:
    """Number the labels as the model does."""
    nameless = learnt.dataset is None and len(classes) == len(learnt.classes)
    if nameless or tuple(classes) == learnt.classes:
        return examples
    if strange := [name for name in classes if name not in learnt.classes]:
        raise DataError(
            f"{examples.source} has classes that the model does not know: {', '.join(strange)}; "
            f"it knows {', '.join(learnt.classes)}"
        )
    numbers = np.array([learnt.classes.index(name) for name in classes])
    return LabeledImages(
        examples.images, numbers[examples.labels], len(learnt.classes), examples.source
    )
