"""Atomic writes follow links, write to files only, and survive Windows' file rules."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from vggnet.artifacts.atomic import check_writable, put_in_place, write_file
from vggnet.errors import OutputError


@pytest.mark.parametrize("exists", [True, False])
def test_a_symbolic_link_is_followed(tmp_path: Path, exists: bool) -> None:
    """The link's target, in another folder, is written; the link stays a link."""
    (tmp_path / "far").mkdir()
    file, link = tmp_path / "far" / "file", tmp_path / "link"
    if exists:
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


def test_a_broken_link_is_reported_early(tmp_path: Path) -> None:
    """A link into a missing folder fails in the check with the same message as in the write."""
    link = tmp_path / "link"
    link.symlink_to(Path("missing", "file"))
    with pytest.raises(OutputError, match=f"cannot write {link}: No such file"):
        check_writable(link)
    with pytest.raises(OutputError, match=f"cannot write {link}: No such file"):
        write_file(link, b"content")
    assert link.is_symlink()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
@pytest.mark.parametrize("kind", ["pipe", "link to a pipe", "device"])
def test_nothing_but_a_file_is_written(tmp_path: Path, kind: str) -> None:
    """A pipe, which would wait for a reader, and a device are refused and stay what they are."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    if kind != "pipe":
        path = tmp_path / "link"
        path.symlink_to("pipe" if kind == "link to a pipe" else os.devnull)
    (tmp_path / "made").write_bytes(b"content")
    mode = path.stat().st_mode
    with pytest.raises(OutputError, match="is a pipe or a device"):
        check_writable(path)
    with pytest.raises(OutputError, match="is a pipe or a device"):
        write_file(path, b"content")
    with pytest.raises(OSError, match="is a pipe or a device"):
        put_in_place(tmp_path / "made", path)
    assert path.stat().st_mode == mode


def test_only_handles_open_for_writing_are_flushed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows refuses to flush a read-only handle, so none is ever passed to fsync."""
    fcntl = pytest.importorskip("fcntl")
    flushed = []

    def flush(descriptor: int) -> None:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            flushed.append(fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE)

    monkeypatch.setattr(os, "fsync", flush)
    write_file(tmp_path / "file", b"content")
    assert flushed == [os.O_RDWR]


@pytest.mark.parametrize(("code", "failures"), [(5, 3), (32, 3), (5, 99), (None, 1)])
def test_a_file_held_by_a_virus_scanner_is_replaced_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int | None, failures: int
) -> None:
    """Windows' "access denied" and "in use" are retried for a second, other errors never."""
    path = tmp_path / "file"
    path.write_bytes(b"earlier")
    rename, attempts = os.replace, []

    def replace(source: str, target: str) -> None:
        attempts.append(source)
        if len(attempts) <= failures:
            error = PermissionError(13, "Access is denied")
            error.winerror = code  # type: ignore[attr-defined]
            raise error
        rename(source, target)

    monkeypatch.setattr(os, "replace", replace)
    if code and failures < 10:
        write_file(path, b"content")
        assert path.read_bytes() == b"content"
        assert len(attempts) == failures + 1
    else:
        with pytest.raises(OutputError, match="Access is denied; an existing file is unchanged"):
            write_file(path, b"content")
        assert path.read_bytes() == b"earlier"
        assert len(attempts) == (8 if code else 1)
    assert list(tmp_path.iterdir()) == [path]
