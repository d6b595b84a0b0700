"""The image files of a folder: which class, and which split, each belongs to."""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, cast

import numpy as np

from vggnet.data.decode import SUFFIXES
from vggnet.data.idx import Source
from vggnet.errors import DataError

AnySource = TypeVar("AnySource", bound=Source)

_PARTS = {"train", "training", "val", "valid", "validation", "dev", "eval", "test", "testing"}
"""How others call them; `train` and `test` side by side are taken for what they are."""

_HELD_OUT = 6
"""One image in so many of each class is for the test; MNIST's own ratio is one in seven."""


@dataclass(frozen=True)
class Listing:
    """Image files, those to learn from first."""

    files: tuple[Source, ...]
    labels: tuple[int, ...]
    classes: tuple[str, ...]
    empty: tuple[str, ...]
    """Class folders that hold nothing to learn from."""
    train_size: int
    """The first so many files are to learn from, the others for the test."""
    own_test: bool
    """Whether the folder itself says which those are."""


@contextmanager
def refusals() -> Iterator[None]:
    """Say in words what the system does not show: it may not be read, or its name is too long.

    Raises:
        DataError: In the place of an OSError.
    """
    try:
        yield
    except OSError as error:
        raise DataError(f"cannot read {error.filename}: {error.strerror}") from None


def check_name(name: str) -> None:
    """Refuse a name that no model file could hold, and no terminal show.

    Raises:
        DataError: It is not valid UTF-8.
    """
    try:
        name.encode()
    except UnicodeEncodeError:
        shown = os.fsencode(name).decode(errors="backslashreplace")
        raise DataError(f"the name {shown} is not valid UTF-8; rename it") from None


@refusals()
def open_folder(path: Path) -> Source:
    """Return the folder that holds the classes; a zip may have one folder around them.

    Raises:
        DataError: It is no zip, may not be read, or has a name that is not valid UTF-8.
    """
    check_name(str(path))
    if path.is_dir():
        return path
    try:
        root = zipfile.Path(path)
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(f"cannot read {path}: {error}") from None
    inside = list(visible(root))
    if len(inside) == 1 and inside[0].is_dir():
        within = list(visible(inside[0]))
        files = [one for one in within if not one.is_dir()]
        images = any(one.name.lower().endswith(SUFFIXES) for one in files)
        if has_idx_files(files) or (len(files) < len(within) and not images):
            return inside[0]
    return root


def has_idx_files(files: Iterable[Source]) -> bool:
    """Whether some files are IDX files by their names."""
    return any("-idx" in file.name for file in files)


@refusals()
def list_images(root: Source, path: Path) -> Listing:
    """Find every class and its files, without opening any.

    Where there are `train` and `test`, the classes are in those; otherwise a sixth of each
    class is for the test, by a fixed seed and the order of the files' names.

    Args:
        root: As `open_folder` returned it.
        path: What to call it in an error.

    Raises:
        DataError: There is no class, a test class without training images, splits of other
            names, a class whose name is not valid UTF-8, or a folder that may not be read.
    """
    folders = {inner.name: inner for inner in visible(root) if inner.is_dir()}
    own_test = {"train", "test"} <= folders.keys()
    if own_test:
        train, test = (_find_classes(folders[name]) for name in ("train", "test"))
    else:
        _refuse_splits(folders, path)
        shares = {name: _split(files, name) for name, files in _find_classes(root).items()}
        train, test = ({name: both[part] for name, both in shares.items()} for part in (0, 1))
    classes = tuple(sorted(name for name, files in train.items() if files))
    if not classes:
        raise DataError(
            f"{path} has no images: it must hold a folder for each class with images in it, "
            "or train/ and test/ with such folders in both"
        )
    if strange := sorted(name for name, files in test.items() if files and name not in classes):
        raise DataError(f"{path} has test images of {', '.join(strange)} and none to train on")
    rows = [
        (file, label)
        for part in (train, test)
        for label, name in enumerate(classes)
        for file in part.get(name, ())
    ]
    return Listing(
        files=tuple(file for file, _ in rows),
        labels=tuple(label for _, label in rows),
        classes=classes,
        empty=tuple(sorted(name for name, files in train.items() if not files)),
        train_size=sum(map(len, train.values())),
        own_test=own_test,
    )


def visible(folder: AnySource) -> Iterator[AnySource]:
    """Leave out what systems put into folders: .DS_Store, __MACOSX, Thumbs.db."""
    for inner in cast("Iterator[AnySource]", folder.iterdir()):
        if not inner.name.startswith((".", "__")) and inner.name != "Thumbs.db":
            yield inner


def visible_files(folder: AnySource) -> Iterator[AnySource]:
    """Find what is visible in a folder and in those within it."""
    for inner in visible(folder):
        if inner.is_dir():
            yield from visible_files(inner)
        else:
            yield inner


def _refuse_splits(folders: Mapping[str, Source], path: Path) -> None:
    """Refuse folders that are called like parts of a dataset and hold its classes."""
    parts = sorted(name for name in folders if name.lower() in _PARTS)
    holds_folders = all(any(inner.is_dir() for inner in visible(folders[name])) for name in parts)
    if len(parts) > 1 and len(parts) == len(folders) and holds_folders:
        raise DataError(
            f"{path} holds {' and '.join(parts)}, which look like parts of a dataset and not like "
            "classes; call the one to learn from train, and the one to test with test"
        )


def _find_classes(folder: Source) -> dict[str, list[Source]]:
    classes = [inner for inner in visible(folder) if inner.is_dir()]
    for inner in classes:
        check_name(inner.name)
    return {inner.name: sorted(visible_files(inner), key=str) for inner in classes}


def _split(files: list[Source], name: str) -> tuple[list[Source], list[Source]]:
    """Share a class out to train and test; an image that is alone is to learn from."""
    count = max(1, round(len(files) / _HELD_OUT)) if len(files) > 1 else 0
    # Each class has a seed of its own: more images of one do not move those of another.
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
    held_out = set(np.random.default_rng(seed).permutation(len(files))[:count].tolist())
    train = [file for number, file in enumerate(files) if number not in held_out]
    return train, [files[number] for number in sorted(held_out)]
