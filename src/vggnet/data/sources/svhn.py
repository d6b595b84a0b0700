"""SVHN's cropped digits, as published at http://ufldl.stanford.edu/housenumbers/: MATLAB files."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np

from vggnet.data.collection import TEST, TRAIN, Collection, Request
from vggnet.data.files import File, Tree
from vggnet.data.memory import check_memory
from vggnet.data.sources.arrays import ArraySplit, Numbers, Pixels, collect
from vggnet.errors import DataError

_NAME = re.compile(r"(train|test)_32x32\.mat")


def recognize(tree: Tree) -> str | None:
    """Describe SVHN's files in a tree; None if there are none."""
    return "SVHN's files" if _find_files(tree) else None


def load(tree: Tree, request: Request) -> Collection:
    """Load the training and the test file, or one of them.

    Raises:
        DataError: A file is damaged, or there is more than one of a name.
    """
    splits: dict[int, ArraySplit] = {}
    for file in _find_files(tree):
        split = TEST if file.base.startswith("test") else TRAIN
        if split in splits:
            raise DataError(f"{tree.path} holds {file.base} more than once: name one folder")
        splits[split] = ArraySplit(*read_split([file]))
    return collect(splits, str(tree.path), request)


def read_rows(tree: Tree) -> ArraySplit:
    """Return the images of one file."""
    return ArraySplit(*read_split(tree.files))


def read_split(files: Sequence[File]) -> tuple[Pixels, Numbers]:
    """Read one file.

    Returns:
        Images, (N, 3, 32, 32), and labels, uint8 (N,). The file calls the digit 0 ten.

    Raises:
        DataError: It is damaged.
    """
    (file,) = files
    from scipy.io import loadmat, whosmat  # imported here: it takes 0.3 s

    try:
        with file.open() as opened:
            found = {name: shape for name, shape, _ in whosmat(opened)}
            check_memory(2 * math.prod(found["X"]), file.path)
            opened.seek(0)
            content = loadmat(opened, variable_names=["X", "y"])
        images, labels = np.asarray(content["X"]), np.asarray(content["y"])
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[:3] != (32, 32, 3):
            raise ValueError(f"X is {images.dtype} of shape {images.shape}")
        if labels.shape != (images.shape[3], 1) or not np.isin(labels, range(1, 11)).all():
            raise ValueError("y does not hold one label from 1 to 10 for each image")
    except (DataError, MemoryError):
        raise
    except OSError as error:
        raise DataError(f"cannot read {file.path}: {error.strerror or error}") from None
    except Exception as error:  # scipy raises almost anything on a damaged file
        raise DataError(f"{file.path} is not one of SVHN's files ({error})") from None
    return np.ascontiguousarray(images.transpose(3, 2, 0, 1)), labels[:, 0].astype(np.uint8) % 10


def _find_files(tree: Tree) -> list[File]:
    return [file for file in tree.files if _NAME.fullmatch(file.base)]
