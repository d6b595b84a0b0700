"""CIFAR and SVHN, on small files in their formats: the published ones cannot be had here."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import pickle
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vggnet.data.catalog import CATALOG
from vggnet.data.files import open_file
from vggnet.data.known import load_entry
from vggnet.data.published import Archive, CatalogEntry
from vggnet.data.sources.cifar import read_split
from vggnet.data.storage import load_dataset
from vggnet.errors import DataError, VggnetError

IMAGES = np.random.default_rng(0).integers(0, 256, (12, 3, 32, 32), np.uint8)
LABELS = np.arange(12, dtype=np.uint8) % 10


def write_binary(folder: Path, name: str) -> None:
    """Write the binary version: one label byte, or a coarse and a fine one, and the pixels."""
    folder.mkdir(parents=True)
    rows = IMAGES.reshape(12, -1)
    before = [LABELS[:, None]] if name == "cifar-10" else [LABELS[:, None] // 5, LABELS[:, None]]
    content = np.concatenate([*before, rows], axis=1).astype(np.uint8).tobytes()
    entry = CATALOG[name]
    for file in (*entry.train, *entry.test):
        (folder / file.name).write_bytes(content)


def write_pickled(folder: Path, name: str, protocol: int = 2) -> None:
    """Write the Python version."""
    folder.mkdir(parents=True)
    key = b"labels" if name == "cifar-10" else b"fine_labels"
    batch = {b"batch_label": b"batch", key: LABELS.tolist(), b"data": IMAGES.reshape(12, -1)}
    entry = CATALOG[name]
    for file in (*entry.train, *entry.test):
        path = folder / file.name.removesuffix(".bin")
        path.write_bytes(pickle.dumps(batch, protocol))
    (folder / ("batches.meta" if name == "cifar-10" else "meta")).write_bytes(b"")


@pytest.mark.parametrize("write", [write_binary, write_pickled])
@pytest.mark.parametrize("name", ["cifar-10", "cifar-100"])
def test_both_versions_of_both(tmp_path: Path, name: str, write: object) -> None:
    """As a catalog's name with --data-dir, and as a path, the images and classes are the same."""
    entry = CATALOG[name]
    number = 0 if write is write_binary else 1
    folder = tmp_path / entry.archives[number].prefix.rstrip("/")
    write(folder, name)  # type: ignore[operator]
    found = load_dataset(name, tmp_path)
    assert found.classes == entry.classes
    assert (found.test.images == IMAGES).all()
    assert (found.test.labels == LABELS).all()
    assert len(found.train) == 12 * len(entry.train)
    by_path = load_dataset(folder)
    assert by_path.classes == entry.classes[:10]
    assert (by_path.test.images == IMAGES).all()


def publish(tmp_path: Path, name: str) -> CatalogEntry:
    """Pack the binary version as it is published, and return an entry with its hash."""
    entry = CATALOG[name]
    prefix = entry.archives[0].prefix
    write_binary(tmp_path / "made" / prefix, name)
    path = tmp_path / "data" / entry.archives[0].name
    path.parent.mkdir()
    with tarfile.open(path, "w:gz") as archive:
        archive.add(tmp_path / "made" / prefix, prefix.rstrip("/"))
    md5 = hashlib.md5(path.read_bytes()).hexdigest()
    return replace(entry, archives=(Archive(path.name, md5, prefix),))


@pytest.mark.parametrize("name", ["cifar-10", "cifar-100"])
def test_the_published_archive_is_read_without_unpacking(tmp_path: Path, name: str) -> None:
    """After its hash was checked; another archive is refused."""
    entry = publish(tmp_path, name)
    found = load_entry(entry, tmp_path / "data")
    assert found.verified
    assert (found.test.images == IMAGES).all()
    path = tmp_path / "data" / entry.archives[0].name
    path.write_bytes(path.read_bytes() + b"\0")
    os.utime(path, (1, 1))
    with pytest.raises(DataError, match="is not the published file: its MD5"):
        load_entry(entry, tmp_path / "data")


class Boom:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        """Raise on loading."""
        return (pytest.fail, ("code was run",))


PICKLES = {
    "a call": pickle.dumps({b"data": Boom(), b"labels": []}, 2),
    "a call of the system": b"cos\nsystem\n(S'true'\ntR.",
    "an array of objects": pickle.dumps({b"data": np.array([[1, "a"]], object), b"labels": [0]}, 2),
    "floats": pickle.dumps({b"data": np.zeros((1, 3072)), b"labels": [0]}, 2),
    "another width": pickle.dumps({b"data": np.zeros((1, 9), np.uint8), b"labels": [0]}, 2),
    "a label too many": pickle.dumps(
        {b"data": np.zeros((1, 3072), np.uint8), b"labels": [0, 1]}, 2
    ),
    "label 10": pickle.dumps({b"data": np.zeros((1, 3072), np.uint8), b"labels": [10]}, 2),
    "label 300": pickle.dumps({b"data": np.zeros((1, 3072), np.uint8), b"labels": [300]}, 2),
    "no dictionary": pickle.dumps([1, 2], 2),
    "a memo of 4 billion": b"\x80\x02Kar\xff\xff\xff\xff.",
    "millions of objects": b"\x80\x02(" + b"}" * 1_100_000 + b"t.",
    "frames": b"\x80\x04\x95\xff\xff\xff\x7f\0\0\0\0.",
    "nothing": b"",
}


@pytest.mark.parametrize("content", PICKLES.values(), ids=PICKLES)
def test_only_arrays_are_unpickled(tmp_path: Path, content: bytes) -> None:
    """Nothing else is loaded, called, or allocated."""
    path = tmp_path / "data_batch_1"
    path.write_bytes(content)
    with pytest.raises(DataError, match="data_batch_1"):
        read_split([open_file(path)])


@given(st.binary(max_size=80))
def test_any_pickle_gives_images_or_a_data_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    """No content ends in another exception."""
    path = tmp_path_factory.mktemp("cifar") / "data_batch_1"
    path.write_bytes(b"\x80\x02" + content)
    with contextlib.suppress(DataError):
        read_split([open_file(path)])


@pytest.mark.parametrize("size", [0, 1, 3072, 3074])
def test_a_cut_binary_file_is_refused(tmp_path: Path, size: int) -> None:
    """It must hold whole records."""
    path = tmp_path / "data_batch_1.bin"
    path.write_bytes(bytes(size))
    with pytest.raises(DataError, match="no whole number of records of 3,073"):
        read_split([open_file(path)])


def test_two_versions_in_one_folder_are_refused(tmp_path: Path) -> None:
    """Their images would be there twice."""
    write_binary(tmp_path / "bin", "cifar-10")
    write_pickled(tmp_path / "py", "cifar-10")
    with pytest.raises(DataError, match="holds CIFAR's files 2 times"):
        load_dataset(tmp_path)


def mat(images: np.ndarray, labels: np.ndarray) -> bytes:
    """Return a MATLAB file."""
    io_ = pytest.importorskip("scipy.io")
    file = io.BytesIO()
    io_.savemat(file, {"X": images, "y": labels}, do_compression=True)
    return file.getvalue()


def test_svhn(tmp_path: Path) -> None:
    """Images are (32, 32, 3, N) there, and the digit 0 is called ten."""
    stored = IMAGES.transpose(2, 3, 1, 0)
    labels = np.where(LABELS == 0, 10, LABELS)[:, np.newaxis]
    for name in ("train_32x32.mat", "test_32x32.mat"):
        (tmp_path / name).write_bytes(mat(stored, labels))
    found = load_dataset(tmp_path)
    assert found.classes == tuple("0123456789")
    assert (found.test.images == IMAGES).all()
    assert (found.test.labels == LABELS).all()
    with pytest.raises(DataError, match="not the published file: its MD5"):
        load_dataset("svhn", tmp_path)


@pytest.mark.parametrize("harm", ["shape", "type", "label", "cut", "text"])
def test_what_is_not_svhn(tmp_path: Path, harm: str) -> None:
    """Each fault is a message with the file's name."""
    images, labels = IMAGES.transpose(2, 3, 1, 0), LABELS[:, np.newaxis] + 1
    if harm == "shape":
        images = images[:16]
    if harm == "type":
        images = images.astype(np.float64)
    if harm == "label":
        labels = labels + 1
    content = b"no MATLAB file" if harm == "text" else mat(images, labels)
    path = tmp_path / "train_32x32.mat"
    path.write_bytes(content[: len(content) // 2] if harm == "cut" else content)
    with pytest.raises(VggnetError, match=r"train_32x32\.mat"):
        load_dataset(path)
