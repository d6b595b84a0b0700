"""IDX files: under any of their names, in pairs, and nothing that the format does not allow."""

from __future__ import annotations

import contextlib
import gzip
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from conftest import idx_bytes
from vggnet.data.files import open_file
from vggnet.data.sources.idx import read_idx
from vggnet.data.storage import load_dataset
from vggnet.errors import DataError

IMAGES = idx_bytes(np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4))
TERABYTES = b"\0\0\x08\x03" + b"\xff\xff\xff\xff" * 3


@given(
    array=hnp.arrays(np.uint8, hnp.array_shapes(min_dims=3, max_dims=3, min_side=0, max_side=9)),
    zipped=st.booleans(),
)
def test_what_was_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, array: np.ndarray, zipped: bool
) -> None:
    """Any array of three dimensions reads back as it is, raw or gzipped."""
    path = tmp_path_factory.mktemp("idx") / "file"
    content = idx_bytes(array)
    path.write_bytes(gzip.compress(content) if zipped else content)
    found = read_idx(open_file(path), 3)
    assert found.shape == array.shape
    assert (found == array).all()


# Cases go by names: a gzip file holds the second it was made in, and names made of its bytes
# would differ between the processes that share the tests out.
DAMAGE = {
    "nothing": (b"", "two zero bytes"),
    "an image": (b"\x89PNG\r\n", "two zero bytes"),
    "a page": (b"<html>", "two zero bytes"),
    "floats": (b"\0\0\x0d\x03" + IMAGES[4:], "type 0x0d"),
    "labels": (b"\0\0\x08\x01" + IMAGES[4:], "1 dimensions where images have 3"),
    "half a header": (IMAGES[:10], "ends inside its header, at byte 10"),
    "a byte less": (IMAGES[:-1], "too short"),
    "a byte more": (IMAGES + b"\0", "more found"),
    "terabytes claimed": (TERABYTES, "too short"),
    "terabytes claimed, zipped": (gzip.compress(TERABYTES), "too short"),
    "zipped and cut": (gzip.compress(IMAGES)[:-12], "is damaged"),
    "a byte less, zipped": (gzip.compress(IMAGES[:-1]), "only 23 found"),
    "a byte more, zipped": (gzip.compress(IMAGES + b"\0"), "more found"),
    "zipped, sums wiped": (gzip.compress(IMAGES)[:-6] + b"\0" * 6, "is damaged"),
    "zeros that call themselves zipped": (b"\x1f\x8b" + b"\0" * 20, "is damaged"),
}


@pytest.mark.parametrize(("content", "words"), DAMAGE.values(), ids=DAMAGE)
def test_damage_is_named(tmp_path: Path, content: bytes, words: str) -> None:
    """A file of another kind or length is refused, in words that name it and the fault."""
    path = tmp_path / "images"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_idx(open_file(path), 3)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", [TERABYTES, gzip.compress(TERABYTES)], ids=["raw", "zipped"])
def test_a_claim_of_terabytes_costs_no_memory(tmp_path: Path, content: bytes) -> None:
    """The header's claim is checked against the file before anything is allocated."""
    path = tmp_path / "images"
    path.write_bytes(content)
    tracemalloc.start()
    with pytest.raises(DataError):
        read_idx(open_file(path), 3)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20


@pytest.mark.parametrize("zipped", [False, True])
def test_every_truncation_is_refused(tmp_path: Path, zipped: bool) -> None:
    """Cut at any length, a file is refused."""
    whole = gzip.compress(IMAGES) if zipped else IMAGES
    path = tmp_path / "images"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError):
            read_idx(open_file(path), 3)


@given(st.binary(max_size=64))
def test_any_bytes_give_an_array_or_a_data_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    """No content ends in another exception."""
    path = tmp_path_factory.mktemp("idx") / "file"
    path.write_bytes(b"\0\0\x08\x01" + content)
    with contextlib.suppress(DataError):
        assert read_idx(open_file(path), 1).ndim == 1


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    """What cannot be opened is named."""
    with pytest.raises(DataError, match=r"cannot read .*missing: No such file"):
        read_idx(open_file(tmp_path / "missing"), 3)
    with pytest.raises(DataError, match="cannot read"):
        read_idx(open_file(tmp_path), 3)


TRAIN, TEST = np.random.default_rng(0).integers(0, 256, (2, 30, 5, 5), np.uint8)
LABELS = np.arange(30, dtype=np.uint8) % 3


def lay_out_pairs(folder: Path, names: str) -> Path:
    """Write two pairs; in `names`, {} is the kind, as in images-idx3."""
    for split, images in (("train", TRAIN), ("t10k", TEST)):
        for kind, array in (("images-idx3", images), ("labels-idx1", LABELS)):
            path = folder / names.format(split=split, kind=kind, dotted=kind.replace("-", "."))
            path.parent.mkdir(parents=True, exist_ok=True)
            content = idx_bytes(array)
            path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return folder


@pytest.mark.parametrize(
    "names",
    [
        "{split}-{kind}-ubyte",
        "{split}-{dotted}-ubyte",
        "{split}-{dotted}-ubyte.gz",
        "{split}-{kind}-ubyte/{split}-{kind}-ubyte",
        "{split}-{dotted}-ubyte/{split}-{kind}-ubyte",
        "MNIST/raw/{split}-{kind}-ubyte.gz",
        "my-{split}-{kind}-ubyte",
    ],
)
def test_names_of_unpackers_and_layouts(tmp_path: Path, names: str) -> None:
    """Dots for dashes, a folder of the file's own name, torchvision's folders, a prefix."""
    found = load_dataset(lay_out_pairs(tmp_path / "digits", names))
    assert (found.train.images[:, 0] == TRAIN).all()
    assert (found.test.images[:, 0] == TEST).all()
    assert (found.test.labels == LABELS).all()


def test_the_same_files_under_two_names_are_one_dataset(tmp_path: Path) -> None:
    """As Kaggle's archive of MNIST holds them."""
    lay_out_pairs(tmp_path, "{split}-{dotted}-ubyte")
    lay_out_pairs(tmp_path, "{split}-{kind}-ubyte/{split}-{kind}-ubyte")
    assert (load_dataset(tmp_path).train.images[:, 0] == TRAIN).all()


def test_a_single_pair(tmp_path: Path) -> None:
    """A sixth is held out; the path can be the folder or the file of images."""
    (tmp_path / "images-idx3-ubyte").write_bytes(idx_bytes(TRAIN))
    with pytest.raises(DataError, match="has no IDX file of labels beside it"):
        load_dataset(tmp_path)
    (tmp_path / "labels-idx1-ubyte").write_bytes(idx_bytes(LABELS))
    for path in (tmp_path, tmp_path / "images-idx3-ubyte"):
        found = load_dataset(path)
        assert (len(found.train), len(found.test)) == (24, 6)


def test_what_systems_add_is_left_out(tmp_path: Path) -> None:
    """A Mac's `._` files, a preview, and a folder around the files in a zip."""
    folder = lay_out_pairs(tmp_path / "digits", "{split}-{kind}-ubyte")
    expected = load_dataset(folder).sha256
    (folder / "._train-images-idx3-ubyte").write_bytes(b"Mac OS X")
    Image.new("L", (9, 9)).save(folder / "preview.png")
    assert load_dataset(folder).sha256 == expected
    packed = shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path, "digits")
    assert load_dataset(packed).sha256 == expected


def test_several_datasets_are_refused(tmp_path: Path) -> None:
    """Never one of them without asking."""
    for name in ("MNIST", "FashionMNIST"):
        lay_out_pairs(tmp_path / name / "raw", "{split}-{kind}-ubyte")
    with pytest.raises(DataError, match="holds 2 datasets of IDX files"):
        load_dataset(tmp_path)
    Image.new("L", (9, 9)).save(tmp_path / "MNIST" / "1.png")
    with pytest.raises(DataError, match=r"holds IDX files .* and image files: name"):
        load_dataset(tmp_path)


def test_emnist_is_named_and_turned(tmp_path: Path) -> None:
    """Its transposed images are never loaded silently: the message has the command."""
    for name in ("balanced", "digits"):
        lay_out_pairs(tmp_path, f"emnist-{name}-{{split}}-{{kind}}-ubyte".replace("t10k", "test"))
    for path in tmp_path.iterdir():
        path.rename(str(path).replace("t10k", "test"))
    words = f"--dataset emnist-digits --data-dir {tmp_path}"
    with pytest.raises(DataError, match=words):
        load_dataset(tmp_path)
    found = load_dataset("emnist-digits", tmp_path)
    assert (found.train.images[:, 0] == TRAIN.swapaxes(1, 2)).all()


def test_another_size_is_fitted(tmp_path: Path) -> None:
    """As images of a folder are."""
    folder = lay_out_pairs(tmp_path, "{split}-{kind}-ubyte")
    assert load_dataset(folder, image_size=16).shape == (1, 16, 16)


def test_a_sparse_file_is_not_read(tmp_path: Path) -> None:
    """60 GB that header and file agree on are compared with the memory."""
    path = tmp_path / "train-images-idx3-ubyte"
    with path.open("wb") as file:
        file.write(b"\0\0\x08\x03" + np.array([60 << 10, 1 << 10, 1 << 10], ">u4").tobytes())
        file.truncate((60 << 30) + 16)
    with pytest.raises(DataError, match=r"needs 60\.00 GiB of memory"):
        read_idx(open_file(path), 3)
