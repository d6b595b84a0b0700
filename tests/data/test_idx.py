"""The IDX reader takes what the format allows and nothing else."""

from __future__ import annotations

import contextlib
import gzip
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from conftest import idx_bytes
from vggnet.data.files import open_file
from vggnet.data.sources.idx import read_idx
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
