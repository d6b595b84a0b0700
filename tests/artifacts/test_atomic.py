"""Files go where their path leads, and nothing that is no file is replaced by one."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import numpy as np
import pytest

from vggnet.artifacts.atomic import check_writable, put_in_place, write_file
from vggnet.artifacts.plots import render_sheet
from vggnet.errors import OutputError

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    """A pipe with a name."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    return path


@pytest.mark.parametrize("there", [True, False])
def test_a_symbolic_link_is_followed(tmp_path: Path, there: bool) -> None:
    """The file that it points to, in another folder, is written; the link stays one."""
    (tmp_path / "far").mkdir()
    file, link = tmp_path / "far" / "file", tmp_path / "link"
    if there:
        file.write_bytes(b"earlier")
    link.symlink_to(Path("far", "file"))
    check_writable(link)
    write_file(link, b"content")
    assert link.is_symlink()
    assert file.read_bytes() == b"content"
    (tmp_path / "made").write_bytes(b"exported")
    put_in_place(tmp_path / "made", link)
    assert link.is_symlink()
    assert file.read_bytes() == b"exported"
    assert list(file.parent.iterdir()) == [file]


def test_a_link_to_nowhere_is_found_out_early(tmp_path: Path) -> None:
    """Where the folder behind a link is missing, the check says so as the writing does."""
    link = tmp_path / "link"
    link.symlink_to(Path("missing", "file"))
    with pytest.raises(OutputError, match=f"cannot write {link}: No such file"):
        check_writable(link)
    with pytest.raises(OutputError, match=f"cannot write {link}: No such file"):
        write_file(link, b"content")
    assert link.is_symlink()


def test_a_pipe_is_written_to(pipe: Path, tmp_path: Path) -> None:
    """Bytes and images arrive at its reader, through a link as well, and it stays a pipe."""
    link = tmp_path / "link"
    link.symlink_to(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    check_writable(pipe)
    write_file(link, b"content")
    assert os.read(reader, 100) == b"content"
    render_sheet(pipe, np.zeros((1, 1, 8, 8), np.uint8), ["black"], "one image")
    assert os.read(reader, 100).startswith(b"\x89PNG")
    os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert link.is_symlink()


def test_no_file_is_moved_over_a_pipe(pipe: Path, tmp_path: Path) -> None:
    """What was written already, and can only be renamed, is refused."""
    (tmp_path / "made").write_bytes(b"content")
    with pytest.raises(OSError, match="is a pipe or a device"):
        put_in_place(tmp_path / "made", pipe)
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_pipe_whose_reader_leaves(pipe: Path) -> None:
    """What it does not take is an error of one sentence."""
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)

    def leave(file: object) -> None:
        os.close(reader)
        file.write(b"content")  # type: ignore[attr-defined]

    with pytest.raises(OutputError, match=f"cannot write to {pipe}: Broken pipe"):
        write_file(pipe, leave)
