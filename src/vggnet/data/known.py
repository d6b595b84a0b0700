"""Datasets of the catalog: found on disk or downloaded, and verified where hashes are known."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from vggnet.data.collection import Request, list_names, to_dataset
from vggnet.data.dataset import Dataset, LabeledImages
from vggnet.data.download import TIMEOUT, fetch
from vggnet.data.files import File, file_mode, open_file
from vggnet.data.places import (
    FoundFile,
    Place,
    addresses,
    compare_hash,
    compute_md5,
    find_files,
    find_place,
)
from vggnet.data.published import CatalogEntry, PublishedFile
from vggnet.data.sources import cifar, find_source, idx, open_tree, svhn
from vggnet.data.sources.arrays import Numbers, Pixels
from vggnet.data.sources.idx import idx_sha256, read_idx
from vggnet.errors import DataError

_READERS: dict[str, Callable[[Sequence[File]], tuple[Pixels, Numbers]]] = {
    "idx": idx.read_split,
    "cifar": cifar.read_split,
    "svhn": svhn.read_split,
}
"""Reads the files of one split; by `CatalogEntry.source`."""


def load_test(
    entry: CatalogEntry, data_dir: Path | None = None, *, download: bool = True
) -> tuple[LabeledImages, tuple[str, ...]]:
    """Load only the test images of a dataset, and what to know about them; as `load_entry`."""
    try:
        place = find_place(entry, entry.test, data_dir, download)
    except DataError:
        if data_dir and (found := _load_other_kind(entry, data_dir)):
            return found.test, found.warnings
        raise
    return _load_split(entry, entry.test, "test", place, TIMEOUT).examples, ()


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

    Raises:
        DataError: A file is missing, damaged, or not the published one.
    """
    try:
        place = find_place(entry, entry.train, data_dir, download)
    except DataError:
        if data_dir and (found := _load_other_kind(entry, data_dir)):
            return found
        raise
    train = _load_split(entry, entry.train, "training", place, timeout)
    test = _load_split(entry, entry.test, "test", place, timeout)
    return Dataset(
        name=entry.name,
        classes=entry.classes,
        train=train.examples,
        test=test.examples,
        sha256=_join_hashes(train.sha256, test.sha256),
        verified=train.verified and test.verified,
    )


def _load_other_kind(entry: CatalogEntry, path: Path) -> Dataset | None:
    """Load a dataset that is not in its published files, but in a table or an archive of arrays.

    Returns:
        None if nothing at the path is of a kind that is read.

    Raises:
        DataError: It is, but its classes or the size of its images are not the dataset's, or it
            is damaged.
    """
    if file_mode(path) is None:
        return None
    with contextlib.closing(open_tree(path)) as tree:
        source = find_source(tree)
        if source is None:
            return None
        found = source.load(tree, Request())
    numbers = tuple(str(number + entry.first_label) for number in range(len(entry.classes)))
    if found.rows.classes not in (numbers, entry.classes):
        raise DataError(
            f"{path} has the classes {list_names(found.rows.classes)}, which are not those of "
            f"{entry.name}; to use it as your own data, pass --dataset {path}"
        )
    found = replace(found, rows=replace(found.rows, classes=entry.classes))
    dataset = to_dataset(found, entry.name, f"{entry.name} in {path}")
    hashes = [_published_hashes(part, entry) for part in (dataset.train, dataset.test)]
    published = [tuple(file.sha256 for file in files) for files in (entry.train, entry.test)]
    warnings = list(dataset.warnings)
    if not found.rows.own_test:
        warnings.append(f"{path} has no test images, so a sixth of its images is the test set")
    elif entry.train[0].sha256 and hashes != published:
        warnings.append(f"the images in {path} are not the published ones of {entry.name}")
    return replace(
        dataset,
        sha256=_join_hashes(*hashes),
        verified=hashes == published,
        warnings=tuple(warnings),
    )


def _published_hashes(examples: LabeledImages, entry: CatalogEntry) -> tuple[str, str]:
    """Return the hashes that images and labels have in published IDX files."""
    images = examples.images.swapaxes(2, 3) if entry.transposed else examples.images
    labels = (examples.labels + entry.first_label).astype(np.uint8)
    return idx_sha256(images[:, 0] if images.shape[1] == 1 else images), idx_sha256(labels)


def _join_hashes(train: tuple[str, str], test: tuple[str, str]) -> str:
    return hashlib.sha256("".join((*train, *test)).encode()).hexdigest()


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
