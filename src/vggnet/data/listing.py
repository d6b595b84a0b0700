"""The picture files of a folder: which class, and which split, each belongs to."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vggnet.data.idx import Source
from vggnet.errors import DataError

_HELD_OUT = 6
"""One picture in so many of each class is for the test; MNIST's own ratio is one in seven."""


@dataclass(frozen=True)
class Listing:
    """Picture files, those to learn from first."""

    files: tuple[Source, ...]
    labels: tuple[int, ...]
    classes: tuple[str, ...]
    empty: tuple[str, ...]
    """Class folders that hold nothing to learn from."""
    train_size: int
    """The first so many files are to learn from, the others for the test."""
    own_test: bool
    """Whether the folder itself says which those are."""


def open_folder(path: Path) -> Source:
    """Return the folder that holds the classes; a zip may have one folder around them.

    Raises:
        DataError: It is no zip.
    """
    if path.is_dir():
        return path
    try:
        root = zipfile.Path(path)
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(f"cannot read {path}: {error}") from None
    inside = list(visible(root))
    if len(inside) == 1 and inside[0].is_dir() and all(f.is_dir() for f in visible(inside[0])):
        return inside[0]
    return root


def list_pictures(root: Source, path: Path) -> Listing:
    """Find every class and its files, without opening any.

    Where there are `train` and `test`, the classes are in those; otherwise a sixth of each
    class is for the test, by a fixed seed and the order of the files' names.

    Args:
        root: As `open_folder` returned it.
        path: What to call it in an error.

    Raises:
        DataError: There is no class, or a test class without training pictures.
    """
    folders = {inner.name: inner for inner in visible(root) if inner.is_dir()}
    own_test = {"train", "test"} <= folders.keys()
    if own_test:
        train, test = (_find_classes(folders[name]) for name in ("train", "test"))
    else:
        shares = {name: _split(files, name) for name, files in _find_classes(root).items()}
        train, test = ({name: both[part] for name, both in shares.items()} for part in (0, 1))
    classes = tuple(sorted(name for name, files in train.items() if files))
    if not classes:
        raise DataError(
            f"{path} has no pictures: it must hold a folder for each class with pictures in it, "
            "or train/ and test/ with such folders in both"
        )
    if strange := sorted(name for name, files in test.items() if files and name not in classes):
        raise DataError(f"{path} has test pictures of {', '.join(strange)} and none to train on")
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


def visible(folder: Source) -> Iterator[Source]:
    """Leave out what systems put into folders: .DS_Store, __MACOSX, Thumbs.db."""
    for inner in folder.iterdir():
        if not inner.name.startswith((".", "__")) and inner.name != "Thumbs.db":
            yield inner


def _find_classes(folder: Source) -> dict[str, list[Source]]:
    return {
        inner.name: sorted(_walk(inner), key=str) for inner in visible(folder) if inner.is_dir()
    }


def _walk(folder: Source) -> Iterator[Source]:
    for inner in visible(folder):
        if inner.is_dir():
            yield from _walk(inner)
        else:
            yield inner


def _split(files: list[Source], name: str) -> tuple[list[Source], list[Source]]:
    """Share a class out to train and test; a picture that is alone is to learn from."""
    count = max(1, round(len(files) / _HELD_OUT)) if len(files) > 1 else 0
    # Each class has a seed of its own: more pictures of one do not move those of another.
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
    held_out = set(np.random.default_rng(seed).permutation(len(files))[:count].tolist())
    train = [file for number, file in enumerate(files) if number not in held_out]
    return train, [files[number] for number in sorted(held_out)]
