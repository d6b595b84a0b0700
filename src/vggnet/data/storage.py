"""Datasets by name or folder: found on disk or downloaded, and verified as far as can be."""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vggnet.config import DataConfig, suggest
from vggnet.data.catalog import CATALOG, CatalogEntry, PublishedFile, SplitFiles
from vggnet.data.dataset import Dataset, LabeledImages
from vggnet.data.download import TIMEOUT, fetch
from vggnet.data.folder import is_folder, load_folder
from vggnet.data.idx import Source, idx_sha256, read_idx, read_idx_int
from vggnet.data.places import PACKED, Place, addresses, find_file, find_place
from vggnet.errors import ConfigError, DataError


def load_configured(data: DataConfig) -> Dataset:
    """Load the dataset that a configuration names; as `load_dataset`."""
    return load_dataset(
        data.dataset,
        data.data_dir,
        download=data.download,
        image_size=data.image_size,
        skip_bad=data.skip_bad,
    )


def load_dataset(
    name: str,
    data_dir: Path | None = None,
    *,
    download: bool = True,
    image_size: int | None = None,
    skip_bad: bool = False,
) -> Dataset:
    """Load a dataset's training and test images.

    Args:
        name: A name in the catalog, or a folder of images; see `load_folder`.
        data_dir: Folder in torchvision's layout (`<data_dir>/MNIST/raw/<file>[.gz]`), or
            that `raw` folder itself. Without it the package, the system, and the user's
            cache folder are searched.
        download: Whether to fetch what is on no disk.
        image_size: Pixels a side that the images of a folder are fitted to.
        skip_bad: Whether to leave unreadable images of a folder out.

    Raises:
        ConfigError: The name is not known.
        DataError: A file is missing, damaged, or not the published one.
    """
    if is_folder(name):
        if data_dir is not None:
            raise ConfigError(f"{name} is a folder itself; leave --data-dir out")
        return load_folder(Path(name), image_size=image_size, skip_bad=skip_bad)
    entry = find_entry(name)
    if image_size is not None:
        raise ConfigError(f"{name} has a size of its own; --image-size is for folders of images")
    return load_entry(entry, data_dir, download=download)


def load_test(name: str, data_dir: Path | None = None, *, download: bool = True) -> LabeledImages:
    """Load the test images of a catalog's dataset alone; as `load_dataset`."""
    entry = find_entry(name)
    place = find_place(entry, entry.test, data_dir, download)
    return _load_split(entry, entry.test, "test", place, TIMEOUT).examples


def find_entry(name: str) -> CatalogEntry:
    """Look a dataset up by name.

    Raises:
        ConfigError: There is none of that name.
    """
    if name not in CATALOG:
        raise ConfigError(f"unknown dataset {name!r}, and no folder; {suggest(name, CATALOG)}")
    return CATALOG[name]


def load_entry(
    entry: CatalogEntry,
    data_dir: Path | None = None,
    *,
    download: bool = True,
    timeout: float = TIMEOUT,
) -> Dataset:
    """Load both splits of a dataset; `timeout` is `fetch`'s, the rest `load_dataset`'s."""
    place = find_place(entry, entry.train, data_dir, download)
    train = _load_split(entry, entry.train, "training", place, timeout)
    test = _load_split(entry, entry.test, "test", place, timeout)
    joined = "".join((*train.sha256, *test.sha256))
    return Dataset(
        name=entry.name,
        classes=entry.classes,
        train=train.examples,
        test=test.examples,
        sha256=hashlib.sha256(joined.encode()).hexdigest(),
        verified=train.verified and test.verified,
    )


@dataclass(frozen=True)
class _Split:
    """One split as it was read."""

    examples: LabeledImages
    sha256: tuple[str, str]
    """Of the unpacked files of images and labels."""
    verified: bool
    """Whether both could be compared with something published."""


def _load_split(
    entry: CatalogEntry, split: SplitFiles, name: str, place: Place, timeout: float
) -> _Split:
    """Load one split as images (N, 1, H, W) and labels (N,).

    Raises:
        DataError: A file is missing, damaged, or not the published one.
    """
    paths = [_get_file(entry, file, place, timeout) for file in split.files]
    images = read_idx(paths[0], 3)
    # QMNIST's labels have eight columns, of which the first is the class.
    table = read_idx_int(paths[1], 2) if "idx2-int" in split.labels else read_idx(paths[1], 1)
    labels = table[:, 0] if table.ndim == 2 else table
    upright = np.ascontiguousarray(images.swapaxes(1, 2)) if entry.transposed else images
    examples = LabeledImages(
        upright[:, np.newaxis],
        labels - labels.dtype.type(entry.first_label),
        len(entry.classes),
        f"{entry.name} {name} set in {place.path}",
    )
    sha256 = idx_sha256(images), idx_sha256(table)
    checks = zip(paths, split.files, sha256, strict=True)
    verified = [_verify(path, file, found) for path, file, found in checks]
    if entry.archive and any(isinstance(path, zipfile.Path) for path in paths):
        archive = place.path / entry.archive.name
        _compare(archive, _md5(archive), entry.archive.md5, "MD5")
        verified = [True]
    return _Split(examples, sha256, all(verified))


def _get_file(entry: CatalogEntry, file: PublishedFile, place: Place, timeout: float) -> Source:
    """Return a file of a dataset, fetched where it is not there and may be."""
    found = find_file(entry, file, place.path)
    if found is None and place.downloads:
        name = entry.archive.name if entry.archive else file.name + PACKED
        urls = addresses(entry, name)
        fetch(name, place.path, urls, lambda path: _check(path, file, entry), timeout)
        found = find_file(entry, file, place.path)
    if found is None:
        raise DataError(f"{place.path / file.name} does not exist, nor does the same with .gz")
    return found


def _check(path: Path, file: PublishedFile, entry: CatalogEntry) -> None:
    """Compare a downloaded file with what was published.

    Raises:
        DataError: It is another one.
    """
    if entry.archive:
        _compare(path, _md5(path), entry.archive.md5, "MD5")
    elif file.sha256:
        _compare(path, idx_sha256(read_idx(path, 3 if "idx3" in file.name else 1)), file.sha256)
    else:
        _compare(path, _md5(path), file.md5, "MD5")


def _verify(path: Source, file: PublishedFile, sha256: str) -> bool:
    """Compare a file with the hash that is published for its form; False where none is.

    Raises:
        DataError: It is another file.
    """
    if file.sha256:
        _compare(path, sha256, file.sha256)
    elif file.md5 and isinstance(path, Path) and path.suffix == PACKED:
        _compare(path, _md5(path), file.md5, "MD5")
    else:
        return False
    return True


def _compare(path: Source, found: str, published: str | None, kind: str = "SHA-256") -> None:
    if found != published:
        raise DataError(
            f"{path} is not the published file: its {kind} is {found[:16]}…, "
            f"expected {str(published)[:16]}…; fetch it again"
        )


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()
