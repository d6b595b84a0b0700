"""IDX files, as MNIST is published; the format is described at http://yann.lecun.com/exdb/mnist/.

Names vary: some unpackers turn `train-images-idx3-ubyte` into `train-images.idx3-ubyte`, and
others put the file into a folder of its own name.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import math
import re
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from vggnet.data.collection import TRAIN, Collection, Request, find_split, list_names
from vggnet.data.files import File, Tree, open_file, os_errors
from vggnet.data.memory import check_memory
from vggnet.data.sources.arrays import (
    ArraySplit,
    Numbers,
    Pixels,
    collect,
    scale_pixels,
    shape_images,
    turn_emnist,
)
from vggnet.errors import DataError

_TYPES: dict[int, np.dtype[Any]] = {0x08: np.dtype("u1"), 0x0C: np.dtype(">i4")}
"""IDX type codes: uint8, and int32, which QMNIST's labels have."""

_DEFLATE_LIMIT = 1032
"""Deflate expands no byte to more than this (zlib's technical notes)."""

_PATTERN = re.compile(
    r"(?:(?P<prefix>.+?)[-_])??"
    r"(?:(?P<split>train|training|t10k|test|testing|val|valid|validation)[-_])?"
    r"(?P<kind>images|labels)[-_]idx\d(?:[-_](?:ubyte|int))?"
)


def recognize(tree: Tree) -> str | None:
    """Describe the IDX files in a tree; None if there are none."""
    if tree.is_file and _is_idx(tree.files[0]):
        return "an IDX file"
    names = [file.base for file in tree.files if _parse(file)]
    return f"IDX files ({list_names(names)})" if names else None


def load(tree: Tree, request: Request) -> Collection:
    """Load one dataset of IDX files: one or more pairs of images and labels.

    Raises:
        DataError: A file of a pair is missing or damaged, there are several datasets, or the
            files are EMNIST's, which need to be named.
    """
    sets = _find_sets(tree)
    if emnist := sorted(prefix for _, prefix in sets if prefix.startswith("emnist")):
        folder = tree.path.parent if tree.is_file else tree.path / next(iter(sets))[0]
        one = "emnist-digits" if "emnist-digits" in emnist else emnist[0]
        raise DataError(
            f"{tree.path} holds EMNIST's files ({list_names(emnist)}), with transposed images; "
            f"name one set, which turns them: --dataset {one} --data-dir {folder}"
        )
    if len(sets) > 1:
        names = sorted(f"{folder or '.'}/{prefix}" for folder, prefix in sets)
        raise DataError(
            f"{tree.path} holds {len(sets)} datasets of IDX files ({list_names(names)}): name the "
            "folder of one, or move each into a folder of its own"
        )
    if not sets:
        raise DataError(f"{tree.path} has no labels, so it can be predicted but not trained on")
    (pairs,) = sets.values()
    splits = {}
    for split, pair in pairs.items():
        if len(pair) == 1:
            ((kind, file),) = pair.items()
            missing = "labels" if kind == "images" else "images"
            raise DataError(f"{file.path} has no IDX file of {missing} beside it")
        images, labels = read_split([pair["images"], pair["labels"]])
        splits[split] = ArraySplit(images, labels[:, 0] if labels.ndim == 2 else labels)
    return collect(splits, str(tree.path), request)


def read_rows(tree: Tree) -> ArraySplit:
    """Return the images of a single file; EMNIST's are turned upright."""
    file = tree.files[0]
    images = scale_pixels(shape_images(read_idx(file, 3), file.path), file.path)
    return turn_emnist(ArraySplit(images, None), file)


def read_split(files: Sequence[File]) -> tuple[Pixels, Numbers]:
    """Read the images and the labels of one split.

    Returns:
        Images, (N, 1, H, W), and labels, (N,), or (N, K) in QMNIST, where the first is the class.
    """
    images, labels = files
    pixels = scale_pixels(shape_images(read_idx(images, 3), images.path), images.path)
    return pixels, read_idx(labels, 1, 2)


def read_idx(file: File, *dimensions: int) -> Numbers:
    """Read an IDX file, raw or gzipped (decided by content), as uint8 or int32.

    Magic, dimensions and length are checked before memory of the claimed size is allocated.

    Args:
        file: The file.
        dimensions: How many the array may have: 1 for labels, 3 for images.

    Raises:
        DataError: The file is missing, unreadable, of another kind, too large for the memory,
            or not as long as its header says.
    """
    try:
        with cast("io.BufferedReader", file.open()) as opened:
            if opened.peek(2)[:2] == b"\x1f\x8b":
                with gzip.GzipFile(fileobj=opened) as unzipped:
                    return _read(unzipped, dimensions, file.path, file.size * _DEFLATE_LIMIT)
            return _read(opened, dimensions, file.path, file.size)
    except FileNotFoundError:
        raise DataError(f"{file.path} does not exist") from None
    except (gzip.BadGzipFile, zipfile.BadZipFile, EOFError, zlib.error) as error:
        raise DataError(f"{file.path} is damaged ({error}); get it again") from None
    except OSError as error:
        raise DataError(f"cannot read {file.path}: {error.strerror or error}") from None


def idx_sha256(array: Numbers) -> str:
    """Return the SHA-256 of the unpacked IDX file that holds a uint8 or int32 array."""
    code = 0x08 if array.dtype == np.uint8 else 0x0C
    digest = hashlib.sha256(bytes((0, 0, code, array.ndim)))
    digest.update(np.array(array.shape, ">u4").tobytes())
    digest.update(np.ascontiguousarray(array.astype(_TYPES[code], copy=False)).data)
    return digest.hexdigest()


def canonical_name(base: str) -> str:
    """Return a file's name as published: no `.gz`, no dots, in small letters."""
    return base.lower().removesuffix(".gz").replace(".", "-")


def _read(file: io.BufferedIOBase, dimensions: Sequence[int], path: str, available: int) -> Numbers:
    start = file.read(4)
    if len(start) < 4 or start[:2] != b"\0\0":
        raise DataError(f"{path} is not an IDX file: it must begin with two zero bytes")
    if start[2] not in _TYPES:
        raise DataError(
            f"{path} holds IDX type 0x{start[2]:02x}; only 0x08 (uint8) and 0x0c (int32) are read"
        )
    if start[3] not in dimensions:
        what = "images" if 3 in dimensions else "labels"
        raise DataError(
            f"{path} has {start[3]} dimensions where {what} have {dimensions[0]}; are images and "
            "labels swapped?"
        )
    sizes = file.read(4 * start[3])
    if len(sizes) < 4 * start[3]:
        raise DataError(f"{path} ends inside its header, at byte {4 + len(sizes)}")
    kind, shape = _TYPES[start[2]], np.frombuffer(sizes, ">u4").tolist()
    expected = math.prod(shape) * kind.itemsize
    available -= 4 + len(sizes)
    if expected > available:
        raise DataError(
            f"{path} is too short: its header claims {expected:,} bytes of values, the file cannot "
            f"hold more than {max(available, 0):,}"
        )
    check_memory(expected, path)
    content = np.empty(expected, np.uint8)
    filled = 0
    while count := file.readinto(content[filled:].data):
        filled += count
    if filled < expected or file.read(1):
        found = f"only {filled:,}" if filled < expected else "more"
        raise DataError(
            f"{path} does not hold what its header claims: {expected:,} bytes expected, "
            f"{found} found"
        )
    return content.view(kind).reshape(shape).astype(kind.newbyteorder("="), copy=False)


def _is_idx(file: File) -> bool:
    """Return whether a file begins as an IDX file does, packed or not."""
    try:
        with cast("io.BufferedReader", file.open()) as opened:
            start = opened.peek(4)[:4]
            if start[:2] == b"\x1f\x8b":
                with gzip.GzipFile(fileobj=opened) as unzipped:
                    start = unzipped.read(4)
    except (OSError, EOFError, zlib.error):
        return False
    return len(start) == 4 and start[:2] == b"\0\0" and start[2] in _TYPES and start[3] in (1, 3)


def _parse(file: File) -> dict[str, str] | None:
    """Return the parts of an IDX file's name; None for any other name."""
    found = _PATTERN.fullmatch(canonical_name(file.base))
    return {key: value or "" for key, value in found.groupdict().items()} if found else None


def _find_sets(tree: Tree) -> dict[tuple[str, str], dict[int, dict[str, File]]]:
    """Group a tree's files by dataset (folder and prefix), split, and images or labels."""
    sets: dict[tuple[str, str], dict[int, dict[str, File]]] = {}
    files = _with_partner(tree.files[0]) if tree.is_file else tree.files
    # Where a file is there twice, raw and packed or in a folder of its own, the plainer is read.
    for file in sorted(files, key=lambda file: (file.name.count("/"), file.base.endswith(".gz"))):
        if parsed := _parse(file):
            above, _, last = file.folder.rpartition("/")
            own_folder = canonical_name(last) == canonical_name(file.base)
            key = above if own_folder else file.folder, parsed["prefix"]
            split = find_split(parsed["split"])
            pair = sets.setdefault(key, {}).setdefault(TRAIN if split is None else split, {})
            pair.setdefault(parsed["kind"], file)
    return sets


def _with_partner(file: File) -> list[File]:
    """Return one file of a pair and the other, if it is in the same folder."""
    name = canonical_name(file.base)
    if "images-idx3" in name:
        other = name.replace("images-idx3", "labels-idx1")
    else:
        other = name.replace("labels-idx1", "images-idx3")
    with os_errors():
        beside = [open_file(path) for path in Path(file.path).parent.iterdir() if path.is_file()]
    return [file, *(one for one in beside if canonical_name(one.base) == other != name)]
