"""Datasets bundled with the package or found on disk, verified by SHA-256."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vggnet.config import suggest
from vggnet.data.catalog import CATALOG, CatalogEntry, SplitFiles
from vggnet.data.dataset import Dataset, LabeledImages
from vggnet.data.idx import read_idx
from vggnet.errors import ConfigError, DataError

BUNDLED = Path(__file__).parent
"""The package's own data: one folder a bundled dataset."""


def find_entry(name: str) -> CatalogEntry:
    """Look a dataset up by name.

    Raises:
        ConfigError: There is none of that name.
    """
    if name not in CATALOG:
        raise ConfigError(f"unknown dataset {name!r}; {suggest(name, CATALOG)}")
    return CATALOG[name]


def load_dataset(name: str, data_dir: Path | None = None) -> Dataset:
    """Load and verify a dataset's training and test pictures.

    Args:
        name: A name in the catalog.
        data_dir: Folder in torchvision's layout (`<data_dir>/MNIST/raw/<file>[.gz]`), or
            that `raw` folder itself. Without it the package's own files are read.

    Raises:
        ConfigError: The name is not known.
        DataError: A file is missing, damaged, or not the published one.
    """
    entry = find_entry(name)
    folder = _find_folder(entry, data_dir)
    train = _load_split(entry, entry.train, folder, "training")
    test = _load_split(entry, entry.test, folder, "test")
    return Dataset(entry.name, entry.classes, train, test, dataset_hash(entry))


def load_test(name: str, data_dir: Path | None = None) -> LabeledImages:
    """Load and verify a dataset's test pictures alone; as `load_dataset`."""
    entry = find_entry(name)
    return _load_split(entry, entry.test, _find_folder(entry, data_dir), "test")


def dataset_hash(entry: CatalogEntry) -> str:
    """Return one SHA-256 over those of a dataset's files."""
    files = (entry.train, entry.test)
    joined = "".join(split.images_sha256 + split.labels_sha256 for split in files)
    return hashlib.sha256(joined.encode()).hexdigest()


def _load_split(entry: CatalogEntry, files: SplitFiles, folder: Path, split: str) -> LabeledImages:
    """Load one split as images (N, 1, H, W) and labels (N,), both uint8.

    Raises:
        DataError: A file is missing, damaged, or not the published one.
    """
    images_path, labels_path = (_find_file(folder, file) for file in (files.images, files.labels))
    images, labels = read_idx(images_path, 3), read_idx(labels_path, 1)
    pictures = LabeledImages(
        images[:, np.newaxis], labels, len(entry.classes), f"{entry.name} {split} set in {folder}"
    )
    _verify(images, files.images_sha256, images_path)
    _verify(labels, files.labels_sha256, labels_path)
    return pictures


def _find_folder(entry: CatalogEntry, data_dir: Path | None) -> Path:
    if data_dir is None:
        if entry.bundled:
            return BUNDLED / entry.name
        raise DataError(f"{entry.name} is not part of this package; name its folder: --data-dir")
    candidates = (data_dir / entry.folder / "raw", data_dir / "raw", data_dir)
    for folder in candidates:
        if any(folder.glob(f"{entry.train.images}*")):
            return folder
    raise DataError(
        f"no {entry.name} in {data_dir}: expected "
        f"{candidates[0] / entry.train.images} or the same with .gz"
    )


def _find_file(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise DataError(f"{folder / name} does not exist, nor does the same with .gz")


def _verify(array: npt.NDArray[np.uint8], sha256: str, path: Path) -> None:
    """Compare an IDX file's unpacked bytes, header included, with the published ones."""
    magic = bytes((0, 0, 8, array.ndim))
    digest = hashlib.sha256(magic + np.array(array.shape, ">u4").tobytes())
    digest.update(array.data)
    if digest.hexdigest() != sha256:
        raise DataError(
            f"{path} is not the published file: its SHA-256 is {digest.hexdigest()[:16]}…, "
            f"expected {sha256[:16]}…; fetch it again"
        )
