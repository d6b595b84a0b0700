"""The kinds of data that are read: one module for each, and one row in `SOURCES`.

A path becomes a tree of files, in which exactly one source must recognize its files. That
source loads them as a `Collection`, or reads them as rows for `vggnet predict`.
"""

from __future__ import annotations

import contextlib
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vggnet.data.collection import Collection, Request
from vggnet.data.files import File, Tree, check_name, file_mode, open_file, walk_folder
from vggnet.data.sources import cifar, idx, images, npz, parquet, svhn, table
from vggnet.data.sources.archive import is_archive, open_archive
from vggnet.data.sources.arrays import ArraySplit
from vggnet.errors import DataError


@dataclass(frozen=True)
class Source:
    """One kind of data."""

    name: str
    """What the list of all kinds calls it."""
    recognize: Callable[[Tree], str | None]
    """Describes what it finds in a tree; None if that is nothing."""
    load: Callable[[Tree, Request], Collection]
    """Loads what it recognizes."""
    read_rows: Callable[[Tree], ArraySplit | Sequence[File]] | None
    """Reads a single file without labels: as pixels, or as encoded images."""


SOURCES = (
    Source("IDX files", idx.recognize, idx.load, idx.read_rows),
    Source("CSV tables of pixels", table.recognize, table.load, table.read_rows),
    Source("NumPy archives (.npz)", npz.recognize, npz.load, npz.read_rows),
    Source("Parquet files of images", parquet.recognize, parquet.load, parquet.read_rows),
    Source("CIFAR-10 and CIFAR-100", cifar.recognize, cifar.load, cifar.read_rows),
    Source("SVHN (.mat)", svhn.recognize, svhn.load, svhn.read_rows),
    Source(
        "folders of images, one for each class, also zipped", images.recognize, images.load, None
    ),
)

KINDS = ", ".join(source.name for source in SOURCES)

_SIGNATURES = {
    b"\x89HDF": "an HDF5 file",
    b"\x80": "a pickle",
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"MATLAB": "a MATLAB file",
    b"\x1f\x8b": "a gzip file",
    b"PK\x03\x04": "a zip file with another suffix",
    b"\x93NUMPY": "a NumPy array (.npy)",
    b"%PDF": "a PDF",
    b"SQLite": "an SQLite database",
}
"""How files begin that are not read, for a helpful error."""


def open_tree(path: Path) -> Tree:
    """List the files at a path: of a folder, of a zip archive, or the one file itself.

    Raises:
        DataError: It does not exist, cannot be read, or is not a regular file or folder.
    """
    check_name(str(path))
    mode = file_mode(path)
    if mode is None:
        raise DataError(f"{path} does not exist")
    if stat.S_ISDIR(mode):
        return walk_folder(path)
    if not stat.S_ISREG(mode):
        raise DataError(f"{path} is a pipe or a device; name a file or a folder")
    return open_archive(path) if is_archive(path) else Tree(path, (open_file(path),), is_file=True)


def find_source(tree: Tree) -> Source | None:
    """Return the source that recognizes a tree.

    Raises:
        DataError: Several do.
    """
    found = {source: words for source in SOURCES if (words := source.recognize(tree))}
    folders = SOURCES[-1]
    if len(found) > 1 and not images.has_folders_of_images(tree):
        found.pop(folders, None)  # a preview beside data files
    if len(found) > 1:
        raise DataError(
            f"{tree.path} holds {' and '.join(found.values())}: name the file or the folder of one"
        )
    return next(iter(found), None)


def load_collection(path: Path, request: Request) -> Collection:
    """Load what is at a path.

    Raises:
        DataError: It is of no kind that is read, or is damaged.
    """
    with contextlib.closing(open_tree(path)) as tree:
        source = find_source(tree)
        if source is None:
            raise DataError(f"{describe_unknown(tree)}; these are read: {KINDS}")
        return source.load(tree, request)


def describe_unknown(tree: Tree) -> str:
    """Say what is at a path that no source recognizes."""
    if not tree.is_file:
        return f"{tree.path} has no images and no data files"
    with tree.files[0].open() as file:
        start = file.read(512)
    kinds = [kind for signature, kind in _SIGNATURES.items() if start.startswith(signature)]
    if kinds:
        return f"{tree.path} is {kinds[0]}"
    is_text = bool(start) and all(byte in b"\t\n\r" or byte > 31 for byte in start)
    return f"{tree.path} is " + ("a text file" if is_text else "a file of unknown kind")
