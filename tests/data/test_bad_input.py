"""What the tests of single readers do not have: files that change after they were listed, bombs."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from scipy.io import savemat

from conftest import idx_bytes
from vggnet.data.collection import Request
from vggnet.data.sources import find_source, load_collection, open_tree
from vggnet.errors import DataError

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (20, 32, 32), np.uint8)
COLOUR = RNG.integers(0, 256, (20, 3, 32, 32), np.uint8)
LABELS = (np.arange(20) % 10).astype(np.uint8)


def encode(image: np.ndarray) -> bytes:
    """Return a PNG."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


KINDS = (
    "train-images-idx3-ubyte", "train-images-idx3-ubyte.gz", "a.csv", "a.npz", "a.parquet",
    "data_batch_1.bin", "train_32x32.mat", "1/5.png",
)  # fmt: skip


def write(folder: Path, kind: str) -> Path:
    """Write 20 images, and return the file, or one of the files, that holds them."""
    path = folder / kind
    path.parent.mkdir(exist_ok=True)
    if "idx3" in kind:
        content = idx_bytes(GREY)
        path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
        (folder / "train-labels-idx1-ubyte").write_bytes(idx_bytes(LABELS))
    elif path.suffix == ".csv":
        rows = [[label, *image.ravel()] for label, image in zip(LABELS, GREY, strict=True)]
        np.savetxt(path, rows, "%d", delimiter=",")
    elif path.suffix == ".npz":
        np.savez(path, x_train=GREY, y_train=LABELS)
    elif path.suffix == ".parquet":
        images = [{"bytes": encode(image)} for image in GREY]
        pq.write_table(pa.table({"image": images, "label": LABELS.tolist()}), path)
    elif path.suffix == ".bin":
        rows = np.concatenate([LABELS[:, None], COLOUR.reshape(20, -1)], axis=1)
        path.write_bytes(rows.tobytes())
    elif path.suffix == ".mat":
        savemat(path, {"X": COLOUR.transpose(2, 3, 1, 0), "y": LABELS[:, None] + 1})
    else:
        (folder / "0").mkdir()
        for number, image in enumerate(GREY):
            (folder / str(number % 2) / f"{number}.png").write_bytes(encode(image))
    return path


@pytest.mark.parametrize("harm", ["cut", "gone", "a folder", "grown", "noise"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_changes_after_it_was_listed(tmp_path: Path, kind: str, harm: str) -> None:
    """It is an error that names the file, or is read as it is now; never another exception."""
    path = write(tmp_path, kind)
    with contextlib.closing(open_tree(tmp_path)) as tree:
        source = find_source(tree)
        assert source is not None
        if harm == "cut":
            os.truncate(path, path.stat().st_size // 2 - 1)
        elif harm == "grown":
            with path.open("ab") as file:
                file.write(bytes(1_000))
        elif harm == "noise":
            path.write_bytes(RNG.bytes(path.stat().st_size))
        else:
            path.unlink()
            if harm == "a folder":
                path.mkdir()
        try:
            assert source.load(tree, Request()).images.dtype == np.uint8
            assert harm == "grown"
        except DataError as error:
            assert path.name in str(error)  # noqa: PT017


def test_a_table_that_unpacks_without_end(tmp_path: Path) -> None:
    """A row is given up at 16 million characters, whatever follows."""
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"0," * (1 << 24), 1))
    with pytest.raises(DataError, match="row 1: longer than 16,777,216 characters"):
        load_collection(tmp_path / "a.csv.gz", Request())


def test_an_array_that_unpacks_to_more_than_the_memory(tmp_path: Path) -> None:
    """Its header and the archive agree on 40 TB: refused before a byte of it is unpacked."""
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        head, {"descr": "|u1", "fortran_order": False, "shape": (40_000_000, 1_000, 1_000)}
    )
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", allowZip64=True) as archive:
        archive.writestr("x_train.npy", head.getvalue() + bytes(8))
        archive.filelist[0].file_size = 40 * 10**12 + len(head.getvalue())
    with pytest.raises(DataError, match=r"needs 37,252\.90 GiB of memory"):
        load_collection(path, Request())


def test_images_packed_as_another_kind(tmp_path: Path) -> None:
    """A zip of data files is read like its folder."""
    write(tmp_path, "a.npz")
    packed = shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path, "a.npz")
    assert len(load_collection(Path(packed), Request()).images) == 20
