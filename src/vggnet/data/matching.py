"""Images to evaluate a model on, with the model's own numbers as labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vggnet.data.catalog import CATALOG
from vggnet.data.collection import TEST, Request, list_names
from vggnet.data.dataset import LabeledImages
from vggnet.data.known import load_test
from vggnet.data.sources.arrays import fit_images
from vggnet.data.sources.objects import as_array, read_images
from vggnet.data.storage import find_entry, is_path, load_path
from vggnet.errors import ConfigError, DataError


@dataclass(frozen=True)
class TrainedOn:
    """What a model was trained on."""

    classes: tuple[str, ...]
    image_shape: tuple[int, int, int]
    """Channels, height and width."""
    dataset: str | None = None
    """Name or path; None if the model does not say, and its classes are only numbers."""
    sha256: str | None = None
    """The dataset's hash."""
    bit_depth: int | None = None
    """Bits that counted as the full range of 16-bit images; None without such images."""
    class_folders: str | None = None
    """As in `DataConfig`."""


def load_to_evaluate(
    name: str,
    trained_on: TrainedOn,
    data_dir: Path | None = None,
    *,
    download: bool = True,
    skip_bad: bool = False,
    class_folders: str | None = None,
) -> tuple[LabeledImages, tuple[str, ...]]:
    """Load the images that a model is to be evaluated on, and what to know about them.

    These are the test set; of data without one, the images that were held out if the model
    was trained on the same data, and all images if not. Classes are matched by name, and the
    data may lack some.

    Args:
        name: A name of the catalog, or a path.
        trained_on: What the model was trained on; images are fitted to its size and channels.
        data_dir, download, skip_bad: As in `DataConfig`.
        class_folders: As in `DataConfig`; None: as for training.

    Raises:
        ConfigError: The name is unknown.
        DataError: A class is not one of the model's, or the data cannot be read.
    """
    if not is_path(name):
        if name not in CATALOG and name == trained_on.dataset:
            raise ConfigError(
                f"the model was trained on {name}, which is not here; name it with --dataset"
            )
        entry = find_entry(name)
        test, warnings = load_test(entry, data_dir, download=download)
        return relabel(test, entry.classes, trained_on), warnings
    channels, *sides = trained_on.image_shape
    request = Request(
        image_size=max(sides),
        channels=channels,
        skip_bad=skip_bad,
        class_folders=class_folders or trained_on.class_folders,
        bit_depth=trained_on.bit_depth,
        class_order=trained_on.classes,
    )
    found = load_path(name, data_dir, request)
    rows = found.rows
    warnings = found.warnings + rows.warnings
    trained_on_it = found.digest.sha256 == trained_on.sha256
    if rows.own_test or trained_on_it:
        test = found.part(TEST, f"{name}, {'test set' if rows.own_test else 'held-out sixth'}")
        return relabel(test, rows.classes, trained_on), warnings
    if trained_on.dataset is not None and _is_same_place(name, trained_on.dataset):
        warnings += (
            f"{name} has changed since the model was trained on it, so some of these images may "
            "be its training images",
        )
    everything = LabeledImages(found.images, rows.labels, len(rows.classes), f"{name}, all of it")
    return relabel(everything, rows.classes, trained_on), warnings


def read_examples(examples: tuple[Any, Any], trained_on: TrainedOn) -> LabeledImages:
    """Read images and labels that a program holds, and fit them to what a model takes.

    Labels are names of the model's classes, or, if they are whole numbers and no such names,
    the numbers of its outputs.

    Raises:
        DataError: They cannot be used, or a class is not one of the model's.
    """
    source = "the images"
    if len(examples) != 2:
        raise DataError(f"pass two things, (images, labels), not {len(examples)}")
    images = read_images(examples[0], source, max(trained_on.image_shape[1:]))
    labels = as_array(examples[1], f"{source}, labels")
    if labels.ndim != 1:
        raise DataError(f"{source} have labels of shape {labels.shape}; pass one for each image")
    names = {name: number for number, name in enumerate(trained_on.classes)}
    if labels.dtype.kind == "U" or set(map(str, labels.tolist())) <= names.keys():
        if strange := sorted(set(map(str, labels.tolist())) - names.keys()):
            raise DataError(
                f"{source} have classes that the model does not know: {', '.join(strange)}; "
                f"it knows {', '.join(trained_on.classes)}"
            )
        labels = np.array([names[str(label)] for label in labels.tolist()], np.int64)
    elif labels.dtype.kind not in "iu":
        raise DataError(f"{source} have labels that are neither whole numbers nor names")
    fitted = fit_images(images, trained_on.image_shape)
    return LabeledImages(fitted, labels, len(trained_on.classes), source)


def _is_same_place(one: str, other: str) -> bool:
    return other not in CATALOG and Path(one).resolve() == Path(other).resolve()


def relabel(
    examples: LabeledImages, classes: Sequence[str], trained_on: TrainedOn
) -> LabeledImages:
    """Number the labels as the model does."""
    nameless = trained_on.dataset is None and len(classes) == len(trained_on.classes)
    if nameless or tuple(classes) == trained_on.classes:
        return examples
    numbers = {name: number for number, name in enumerate(trained_on.classes)}
    if strange := [name for name in classes if name not in numbers]:
        raise DataError(
            f"{examples.source} has classes that the model does not know: {list_names(strange)}; "
            f"it knows {list_names(trained_on.classes)}"
        )
    labels = np.array([numbers[name] for name in classes])[examples.labels]
    return LabeledImages(examples.images, labels, len(trained_on.classes), examples.source)
