"""CIFAR-10 and CIFAR-100, in the binary version and the Python version.

Both are described at https://www.cs.toronto.edu/~kriz/cifar.html. The Python version is
pickled; it is read by an unpickler that builds arrays and can call nothing.
"""

from __future__ import annotations

import io
import math
import pickle
import re
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from vggnet.data.catalog import CATALOG
from vggnet.data.collection import TEST, TRAIN, Collection, Request
from vggnet.data.files import File, Tree, os_errors
from vggnet.data.sources.arrays import ArraySplit, Numbers, Pixels, collect
from vggnet.errors import DataError

_SHAPE = (3, 32, 32)
_PIXELS = math.prod(_SHAPE)

_BATCH = re.compile(r"(data_batch_\d|test_batch)(\.bin)?|(train|test)\.bin")
"""Files of images; those of CIFAR-100's Python version have no name of their own."""

_MOST_READS = 1_000_000
"""Reads of an unpickler; CIFAR-100's training set takes 600,000. Each can make an object."""


def recognize(tree: Tree) -> str | None:
    """Describe CIFAR's files in a tree; None if there are none."""
    files = _find_files(tree)
    return f"{_name(files[0])}'s files" if files else None


def load(tree: Tree, request: Request) -> Collection:
    """Load CIFAR-10 or CIFAR-100 from its unpacked files.

    Raises:
        DataError: A file is damaged, or there are several versions.
    """
    files = _find_files(tree)
    if (
        len(versions := {(file.folder, _name(file), file.base.endswith(".bin")) for file in files})
        > 1
    ):
        raise DataError(
            f"{tree.path} holds CIFAR's files {len(versions)} times: name the folder of one version"
        )
    classes = np.array(CATALOG[_name(files[0])].classes)
    splits = {}
    for split in (TRAIN, TEST):
        if chosen := [file for file in files if ("test" in file.base) == (split == TEST)]:
            images, labels = read_split(chosen)
            splits[split] = ArraySplit(images, classes[labels])
    return collect(splits, str(tree.path), request)


def read_rows(tree: Tree) -> ArraySplit:
    """Return the images of one batch."""
    images, labels = read_split(tree.files)
    return ArraySplit(images, labels)


def read_split(files: Sequence[File]) -> tuple[Pixels, Numbers]:
    """Read the batches of one split: images, (N, 3, 32, 32), and labels, uint8 (N,).

    Raises:
        DataError: A file is damaged, or has a label that is none of the classes.
    """
    parts = []
    for file in files:
        with os_errors():
            content = file.read()
        images, labels = (
            _read_binary(content, file)
            if file.base.endswith(".bin")
            else _read_pickled(content, file)
        )
        if labels.size and labels.max() >= len(CATALOG[_name(file)].classes):
            raise DataError(
                f"{file.path} has the label {labels.max()}, which is not one of {_name(file)}"
            )
        parts.append((images.reshape(-1, *_SHAPE), labels))
    images, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return images, labels


def _find_files(tree: Tree) -> list[File]:
    bases = {(file.folder, file.base) for file in tree.files}
    return [
        file
        for file in tree.files
        if _BATCH.fullmatch(file.base)
        or (file.base in ("train", "test") and (file.folder, "meta") in bases)
    ]


def _name(file: File) -> str:
    return "cifar-10" if "batch" in file.base else "cifar-100"


def _read_binary(content: bytes, file: File) -> tuple[Numbers, Numbers]:
    """Read records of one label, or of a coarse and a fine one, and the pixels."""
    length = _PIXELS + (1 if _name(file) == "cifar-10" else 2)
    if not content or len(content) % length:
        raise DataError(
            f"{file.path} has {len(content):,} bytes, which are no whole number of records of "
            f"{length:,}"
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, length)
    return records[:, -_PIXELS:], records[:, -_PIXELS - 1]


def _read_pickled(content: bytes, file: File) -> tuple[Numbers, Numbers]:
    try:
        batch = _Unpickler(_Reads(content), encoding="bytes").load()
        batch = {key.decode() if isinstance(key, bytes) else key: batch[key] for key in batch}
        images, labels = batch["data"].build(), batch.get("labels", batch.get("fine_labels"))
        labels = np.array(labels, np.uint8)
        if images.shape != (len(labels), _PIXELS):
            raise ValueError(f"{len(labels)} labels and data of shape {images.shape}")
    except Exception as error:  # an unpickler raises almost anything on a damaged file
        raise DataError(f"{file.path} is not a batch of CIFAR's Python version ({error})") from None
    return images, labels


class _Reads(io.BytesIO):
    """Bytes that can be read in a limited number of pieces."""

    _left = _MOST_READS

    def read(self, size: int | None = -1, /) -> bytes:
        self._count()
        return super().read(size)

    def readline(self, size: int | None = -1, /) -> bytes:
        self._count()
        return super().readline(size)

    def _count(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise pickle.UnpicklingError("too many objects")


class _PickledArray:
    """An array as its pickle describes it; nothing of NumPy runs."""

    def __init__(self, *_: Any) -> None:
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def build(self) -> Numbers:
        """Return it, if it is of uint8 in rows."""
        _, shape, kind, by_columns, content = self.state
        if kind.name not in ("u1", b"u1") or by_columns:
            raise ValueError("data are not rows of uint8")
        return np.frombuffer(content, np.uint8).reshape(shape)


class _PickledType:
    """A dtype as its pickle describes it."""

    def __init__(self, name: Any, *_: Any) -> None:
        self.name = name

    def __setstate__(self, state: Any) -> None:
        """Byte order and the like do not matter for single bytes."""


def _encode(text: str, encoding: str) -> bytes:
    """Return bytes that Python 3 pickled as text, as `_codecs.encode` would."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"unexpected encoding {encoding}")
    return text.encode("latin1")


class _Unpickler(pickle._Unpickler):
    """Python's own unpickler with stand-ins for NumPy's names, and no others.

    The C version allocates memory for whatever number of objects a file claims.
    """

    _NAMES: ClassVar = {
        ("numpy.core.multiarray", "_reconstruct"): _PickledArray,
        ("numpy._core.multiarray", "_reconstruct"): _PickledArray,
        ("numpy", "ndarray"): _PickledArray,
        ("numpy", "dtype"): _PickledType,
        ("_codecs", "encode"): _encode,
    }
    dispatch: ClassVar = {
        code: method for code, method in pickle._Unpickler.dispatch.items() if code != 0x95
    }
    """Without FRAME, whose content is not read through `_Reads`."""

    def find_class(self, module: str, name: str) -> Any:
        """Return the stand-in for a name."""
        if (module, name) not in self._NAMES:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which is not loaded")
        return self._NAMES[module, name]
