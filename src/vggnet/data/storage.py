"""Datasets by name or path: found on disk or downloaded, and verified where hashes are known."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from vggnet.config import DataConfig, suggest
from vggnet.data.catalog import CATALOG, CatalogEntry, PublishedFile
from vggnet.data.collection import Collection, Request, to_dataset
from vggnet.data.dataset import ARRAYS, Dataset, LabeledImages
from vggnet.data.download import TIMEOUT, fetch
from vggnet.data.files import File, check_name, file_mode, open_file
from vggnet.data.places import (
    FoundFile,
    Place,
    addresses,
    compare_hash,
    compute_md5,
    find_files,
    find_place,
)
from vggnet.data.sources import KINDS, cifar, idx, load_collection, svhn
from vggnet.data.sources.arrays import Numbers, Pixels
from vggnet.data.sources.idx import idx_sha256, read_idx
from vggnet.errors import ConfigError, DataError
from vggnet.recipes import RECIPES, build_config

_READERS: dict[str, Callable[[Sequence[File]], tuple[Pixels, Numbers]]] = {
    "idx": idx.read_split,
    "cifar": cifar.read_split,
    "svhn": svhn.read_split,
}
"""Reads the files of one split; by `CatalogEntry.source`."""


def load_dataset(
    dataset: str | Path = "mnist", data_dir: Path | None = None, **settings: Any
) -> Dataset:
    """Load a dataset's training and test images.

    Args:
        dataset: A name of `vggnet data list`, or the path of a folder, an archive or a file;
            docs/data.md lists what is read.
        data_dir: The only folder to look in for a name; its layout is torchvision's.
        settings: Other fields of `DataConfig`: `download`, `image_size`, `skip_bad`, …

    Raises:
        ConfigError: The name is unknown, or a setting does not fit.
        DataError: A file is missing, damaged, or not the published one.

    Examples:
        >>> vggnet.load_dataset("mnist")
        Dataset(mnist: 60,000 training and 10,000 test images, grey 28×28, 10 classes)
    """
    data = {"dataset": str(dataset), "data_dir": data_dir, **settings}
    return load_configured(build_config({"data": data}).data)


def load_configured(data: DataConfig, sha256: str | None = None) -> Dataset:
    """Load the dataset that a configuration names; as `load_dataset`.

    Args:
        data: The configuration.
        sha256: The dataset's hash when a run began. Version 0.1 sorted classes by name, as 1,
            10, 2; if the hash tells that it did, they are sorted so again.
    """
    if is_path(data.dataset):
        request = Request(
            image_size=data.image_size,
            skip_bad=data.skip_bad,
            common_classes=data.common_classes,
            bit_depth=data.bit_depth,
            cache=data.cache,
        )
        name = dataset_name(data.dataset)
        check_name(name)
        found = load_path(data.dataset, data.data_dir, request)
        by_name = tuple(sorted(found.rows.classes))
        if sha256 not in (None, found.digest.sha256) and by_name != found.rows.classes:
            other = load_path(data.dataset, None, replace(request, class_order=by_name))
            found = other if other.digest.sha256 == sha256 else found
        return to_dataset(found, name, data.dataset)
    entry = find_entry(data.dataset)
    if data.image_size is not None:
        raise ConfigError(f"{entry.name} has a fixed size; --image-size is for your own images")
    return load_entry(entry, data.data_dir, download=data.download)


def load_path(dataset: str, data_dir: Path | None, request: Request) -> Collection:
    """Load a user's own data, whatever their kind.

    Raises:
        ConfigError: A data_dir is given too.
        DataError: As `load_collection`.
    """
    if data_dir is not None:
        raise ConfigError(f"{dataset} is a path itself; leave out --data-dir")
    return load_collection(Path(dataset), request)


def is_path(dataset: str) -> bool:
    """Return whether a dataset is a file or a folder, and not a name of the catalog.

    Raises:
        DataError: The system does not tell.
    """
    return dataset not in CATALOG and file_mode(Path(dataset)) is not None


def dataset_name(dataset: str) -> str:
    """Return what to call a dataset: its name, or that of its folder or file."""
    if dataset in CATALOG:
        return dataset
    return re.sub(r"(\.(zip|npz|parquet|[ct]sv))?(\.gz)?$", "", Path(dataset).resolve().name)


def find_entry(name: str) -> CatalogEntry:
    """Look a dataset up by name.

    Raises:
        ConfigError: There is none of that name.
    """
    if name in RECIPES:
        raise ConfigError(f"{name!r} is a recipe, not a dataset: pass recipe={name!r}, or --recipe")
    if name == ARRAYS:
        raise ConfigError(
            "the images were arrays of a program: pass them again, as in "
            "vggnet.train((images, labels), resume=...)"
        )
    if name not in CATALOG:
        raise ConfigError(
            f"unknown dataset {name!r}, and no file or folder is called so; "
            f"{suggest(name, CATALOG)}; of your own data, these are read: {KINDS}"
        )
    return CATALOG[name]


def load_test(name: str, data_dir: Path | None = None, *, download: bool = True) -> LabeledImages:
    """Load only the test images of a catalog's dataset; as `load_dataset`."""
    entry = find_entry(name)
    place = find_place(entry, entry.test, data_dir, download)
    return _load_split(entry, entry.test, "test", place, TIMEOUT).examples


def load_entry(
    entry: CatalogEntry,
    data_dir: Path | None = None,
    *,
    download: bool = True,
    timeout: float = TIMEOUT,
) -> Dataset:
    """Load both splits of a dataset.

    Args:
        entry: The dataset.
        data_dir, download: As in `DataConfig`.
        timeout: As `fetch` takes it.
    """
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
    """Of images and labels, as unpacked IDX files have it."""
    verified: bool
    """Whether all files could be compared with a published hash."""


def _load_split(
    entry: CatalogEntry,
    wanted: Sequence[PublishedFile],
    name: str,
    place: Place,
    timeout: float,
) -> _Split:
    """Load one split as images, (N, C, H, W), and labels, (N,).

    Raises:
        DataError: A file is missing, damaged, or not the published one.
    """
    found = _get_files(entry, wanted, place, timeout)
    images, table = _READERS[entry.source]([one.file for one in found])
    stored = images[:, 0] if images.shape[1] == 1 else images
    sha256 = idx_sha256(stored), idx_sha256(table)
    # QMNIST's labels have eight columns, of which the first is the class.
    labels = table[:, 0] if table.ndim == 2 else table
    examples = LabeledImages(
        np.ascontiguousarray(images.swapaxes(2, 3)) if entry.transposed else images,
        labels - labels.dtype.type(entry.first_label),
        len(entry.classes),
        f"{entry.name} {name} set in {place.path}",
    )
    verified = [
        _verify(one, published, sha256[min(number, 1)])
        for number, (one, published) in enumerate(zip(found, wanted, strict=True))
    ]
    return _Split(examples, sha256, all(verified))


def _get_files(
    entry: CatalogEntry, wanted: Sequence[PublishedFile], place: Place, timeout: float
) -> list[FoundFile]:
    """Return files of a dataset, downloaded if they are not there and may be."""
    found = find_files(entry, wanted, place.path)
    for file in wanted:
        if file not in found and place.downloads:
            name = entry.archives[0].name if entry.archives else file.published_name

            def check(path: Path, file: PublishedFile = file) -> None:
                _check_download(path, file, entry)

            fetch(name, place.path, addresses(entry, name), check, timeout)
    found = find_files(entry, wanted, place.path) if len(found) < len(wanted) else found
    for file in wanted:
        if file not in found:
            raise DataError(f"{place.path / file.name} does not exist, nor does the same with .gz")
    return [found[file] for file in wanted]


def _check_download(path: Path, file: PublishedFile, entry: CatalogEntry) -> None:
    """Compare a downloaded file with what was published.

    Raises:
        DataError: It is another one.
    """
    if entry.archives:
        compare_hash(path, compute_md5(path), entry.archives[0].md5, "MD5")
    elif file.sha256:
        dimensions = 3 if "idx3" in file.name else 1
        compare_hash(path, idx_sha256(read_idx(open_file(path), dimensions)), file.sha256)
    else:
        compare_hash(path, compute_md5(path), file.md5, "MD5")


def _verify(found: FoundFile, published: PublishedFile, sha256: str) -> bool:
    """Compare a file with the hash that is published for its form; False if none is.

    Raises:
        DataError: It is another file.
    """
    if found.verified:
        return True
    if published.sha256:
        compare_hash(found.file.path, sha256, published.sha256)
    elif published.md5 and found.file.base == published.published_name:
        compare_hash(found.file.path, compute_md5(Path(found.file.path)), published.md5, "MD5")
    else:
        return False
    return True
