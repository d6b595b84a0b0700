"""NumPy archives with the keys of Keras, MedMNIST or scikit-learn; nothing is unpickled."""

from __future__ import annotations

import math
import re
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np

from vggnet.data.collection import (
    SPLITS,
    TEST,
    TRAIN,
    Collection,
    Request,
    find_split,
    list_names,
)
from vggnet.data.files import File, Tree
from vggnet.data.memory import check_memory
from vggnet.data.sources.arrays import (
    ArraySplit,
    Numbers,
    collect,
    scale_pixels,
    shape_images,
)
from vggnet.errors import DataError

_KINDS = {
    **dict.fromkeys(("x", "image", "images", "data"), "images"),
    **dict.fromkeys(("y", "label", "labels", "target", "targets"), "labels"),
}


def recognize(tree: Tree) -> str | None:
    """Describe the NumPy archives in a tree; None if there are none."""
    names = [file.base for file in _find_files(tree)]
    return f"a NumPy archive ({list_names(names)})" if names else None


def load(tree: Tree, request: Request) -> Collection:
    """Load an archive with one or more splits.

    Raises:
        DataError: It is damaged, its arrays are not images and labels, or there are several.
    """
    files = _find_files(tree)
    if len(files) > 1:
        names = list_names([file.name for file in files])
        raise DataError(
            f"{tree.path} holds {len(files)} NumPy archives ({names}): name one of them"
        )
    return collect(_read(files[0]), str(tree.path), request)


def read_rows(tree: Tree) -> ArraySplit:
    """Return the test images of an archive, or all images if it has no split."""
    splits = _read(tree.files[0])
    split = TEST if TEST in splits else min(splits)
    if len(splits) == 1:
        return splits[split]
    names = " and ".join(SPLITS[number] for number in splits)
    warning = f"{tree.path} has {names} images; those of the {SPLITS[split]} split are read"
    return replace(splits[split], warnings=(warning,))


def _find_files(tree: Tree) -> list[File]:
    return [file for file in tree.files if file.base.lower().endswith(".npz")]


def _read(file: File) -> dict[int, ArraySplit]:
    """Read all splits of an archive.

    Raises:
        DataError: It is damaged, too large, or has no images under a known name.
    """
    with _damage(file), file.open() as opened, zipfile.ZipFile(opened) as archive:
        keys = {name.removesuffix(".npy"): name for name in archive.namelist()}
        found = _find_keys(list(keys), file)
        splits = {}
        for split, kinds in found.items():
            words = f"{file.path}, {kinds['images']}"
            images = _read_array(archive, keys[kinds["images"]], words)
            labels = None
            if "labels" in kinds:
                labels = _read_array(
                    archive, keys[kinds["labels"]], f"{file.path}, {kinds['labels']}"
                )
            splits[split] = ArraySplit(scale_pixels(shape_images(images, words), words), labels)
        return splits


def _find_keys(keys: list[str], file: File) -> dict[int, dict[str, str]]:
    """Return the names of the arrays of images and labels, by split."""
    found: dict[int, dict[str, str]] = {}
    for key in keys:
        words = re.split(r"[_.-]", key.lower())
        kinds = [_KINDS[word] for word in words if word in _KINDS]
        splits = [split for word in words if (split := find_split(word)) is not None]
        if len(kinds) == 1 and len(splits) <= 1 and len(words) == 1 + len(splits):
            found.setdefault(splits[0] if splits else TRAIN, {})[kinds[0]] = key
    found = {split: kinds for split, kinds in found.items() if "images" in kinds}
    if not found:
        raise DataError(
            f"{file.path} has the arrays {list_names(keys) or '(none)'}; read are x_train, "
            "y_train, x_test and y_test, train_images, train_labels and so on, data and target, or "
            "images and labels"
        )
    return found


def _read_array(archive: zipfile.ZipFile, name: str, words: str) -> Numbers:
    """Read one array after its header is checked against the file and the memory."""
    with archive.open(name) as opened:
        version = np.lib.format.read_magic(opened)
        if version not in ((1, 0), (2, 0)):
            raise DataError(
                f"{words} has version {version} of the NPY format; 1.0 and 2.0 are read"
            )
        read_header = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        shape, _, dtype = read_header(opened)
        size = math.prod(shape) * dtype.itemsize
        available = archive.getinfo(name).file_size - opened.tell()
    if dtype.hasobject:
        raise DataError(f"{words} holds Python objects, which are not loaded; store plain numbers")
    if size != available:
        raise DataError(f"{words} claims {size:,} bytes of values, and has {available:,}")
    check_memory(size, words)
    with archive.open(name) as opened:
        return np.lib.format.read_array(opened, allow_pickle=False)


@contextmanager
def _damage(file: File) -> Iterator[None]:
    """Turn whatever a damaged archive raises into one error."""
    try:
        yield
    except OSError as error:
        raise DataError(f"cannot read {file.path}: {error.strerror or error}") from None
    except (
        zipfile.BadZipFile, zlib.error, EOFError, ValueError, KeyError, NotImplementedError,
        RuntimeError, OverflowError, TypeError, SyntaxError, tokenize.TokenError, MemoryError,
    ) as error:  # fmt: skip
        raise DataError(f"{file.path} is damaged ({str(error)[:200]})") from None
