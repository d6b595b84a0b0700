"""Zip archives: names are normalized, nothing leads out, and what they claim is not believed."""

from __future__ import annotations

import contextlib
import io
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from data.damage import damaged
from vggnet.data.sources.archive import open_archive
from vggnet.data.storage import load_dataset
from vggnet.errors import DataError, VggnetError


def png(value: int) -> bytes:
    """Return a small image."""
    file = io.BytesIO()
    Image.new("L", (8, 8), value).save(file, "PNG")
    return file.getvalue()


GOOD = [(f"{name}/{number}.png", png(16 * number)) for name in "ab" for number in range(6)]


def pack(path: Path, entries: list[tuple[str | zipfile.ZipInfo, bytes]]) -> Path:
    """Write an archive."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("//x/1.png", "x/1.png"),
        ("/etc/1.png", "etc/1.png"),
        ("a//1.png", "a/1.png"),
        ("./c/./1.png", "c/1.png"),
        ("c\\1.png", "c/1.png"),
        ("C:/c/1.png", "C:/c/1.png"),
    ],
)
def test_names_are_normalized(tmp_path: Path, name: str, expected: str) -> None:
    """Empty parts, dots and the first slash are dropped; zipfile.Path never ends on "//x"."""
    tree = open_archive(pack(tmp_path / "a.zip", [(name, b"")]))
    assert [file.name for file in tree.files] == [expected]


@pytest.mark.parametrize("name", ["../../evil/1.png", "a/../../1.png", "..\\1.png"])
def test_a_path_that_leads_out_is_refused(tmp_path: Path, name: str) -> None:
    """The whole archive is refused: somebody made it so."""
    with pytest.raises(DataError, match="an entry that leads out of the archive"):
        load_dataset(pack(tmp_path / "a.zip", [*GOOD, (name, png(0))]))


def test_strange_archives_are_read(tmp_path: Path) -> None:
    """Deep folders, a name twice, a file with a folder's name, a zip in the zip, a link."""
    link = zipfile.ZipInfo("a/link.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    entries = [("b/" + "d/" * 1_000 + "1.png", png(1)), ("a", b"x"), ("b/in.zip", b"PK")]
    path = pack(tmp_path / "a.zip", [*GOOD, *entries, (link, b"/etc/passwd")])
    with pytest.raises(DataError, match=r"1 of 14 files .*a/link.png \(not a PNG"):
        load_dataset(path)
    found = load_dataset(path, skip_bad=True)
    assert found.classes == ("a", "b")
    assert len(found.train) + len(found.test) == 13


def test_an_entry_without_a_name_is_left_out(tmp_path: Path) -> None:
    """Only a damaged archive has one; zipfile's own `is_dir` fails on it."""
    path = pack(tmp_path / "a.zip", GOOD)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(nameless := zipfile.ZipInfo("x"), b"x")
        nameless.filename = ""  # only in the list of entries, which is written last
    assert len(open_archive(path).files) == len(GOOD)


def test_a_name_too_long_is_refused(tmp_path: Path) -> None:
    """No system can hold it."""
    with pytest.raises(DataError, match="name has 60,006 characters"):
        load_dataset(pack(tmp_path / "a.zip", [*GOOD, ("x" * 60_000 + "/1.png", b"")]))


def patch(path: Path, offset: int, value: int) -> Path:
    """Change one byte of every entry in an archive's directory."""
    content = bytearray(path.read_bytes())
    at = content.find(b"PK\x01\x02")
    while at >= 0:
        content[at + offset] |= value
        at = content.find(b"PK\x01\x02", at + 4)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(("offset", "value"), [(8, 1), (10, 99)], ids=["encrypted", "method 99"])
def test_what_cannot_be_unpacked_is_named(tmp_path: Path, offset: int, value: int) -> None:
    """Each entry is a bad file."""
    path = patch(pack(tmp_path / "a.zip", list(GOOD)), offset, value)
    with pytest.raises(DataError, match=r"12 of 12 files in .* cannot be read: a/0.png"):
        load_dataset(path)


def test_a_huge_entry_costs_one_file_and_no_memory(tmp_path: Path) -> None:
    """An image and 3 GB of zeros after it, packed to 3 MB: refused by its size, never unpacked."""
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, content in GOOD:
            archive.writestr(name, content)
    # The claim alone decides, so the zeros need not be there.
    content = bytearray(path.read_bytes())
    at = content.find(b"PK\x01\x02")
    content[at + 24 : at + 28] = (3_000_000_000).to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"1 of 12 files .*a/0.png \(3.0 GB are too much"):
        load_dataset(path)
    assert len(load_dataset(path, skip_bad=True).train) == 9


SPARSE = """
import resource, sys, vggnet
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
print(len(vggnet.load_dataset(sys.argv[1], skip_bad=True).train))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="files have no holes, or memory no limit")
def test_a_sparse_file_costs_one_file_and_no_memory(tmp_path: Path) -> None:
    """An image that claims 60 GB on disk is not read."""
    for name, content in GOOD:
        (tmp_path / "pets" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "pets" / name).write_bytes(content)
    with (tmp_path / "pets/a/z.png").open("wb") as file:
        file.write(png(0))
        file.truncate(60 << 30)
    command = [sys.executable, "-c", SPARSE, tmp_path / "pets"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == "10\n", done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="files have no holes")
def test_a_huge_table_beside_images_is_not_read(tmp_path: Path) -> None:
    """A labels.csv that claims 60 GB on disk is refused by its size."""
    (tmp_path / "0.png").write_bytes(png(0))
    with (tmp_path / "labels.csv").open("wb") as file:
        file.write(b"file_name,label\n0.png,a\n")
        file.truncate(60 << 30)
    with pytest.raises(DataError, match=r"64\.4 GB are too much for one file"):
        load_dataset(tmp_path)


def test_an_empty_archive_and_no_archive(tmp_path: Path) -> None:
    """Each has a message."""
    with pytest.raises(DataError, match="has no images and no data files"):
        load_dataset(pack(tmp_path / "empty.zip", []))
    (tmp_path / "text.zip").write_text("no archive")
    with pytest.raises(DataError, match="is not a readable zip archive"):
        load_dataset(tmp_path / "text.zip")


@given(st.data())
def test_any_damage_gives_images_or_an_error_of_ours(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Cut anywhere, or with other bytes anywhere, it ends in no other exception."""
    path = pack(tmp_path_factory.mktemp("zip") / "a.zip", list(GOOD))
    path.write_bytes(data.draw(damaged(path.read_bytes())))
    with contextlib.suppress(VggnetError):
        assert load_dataset(path, skip_bad=True).train.images.dtype == np.uint8
