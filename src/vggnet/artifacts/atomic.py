"""Files that are either whole or not there."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from vggnet.errors import OutputError


def write_file(path: Path, content: bytes | Callable[[BinaryIO], object]) -> None:
    """Write a file beside its place, flush it to the disk, and rename it there.

    Whatever fails, and whenever the process is killed, `path` is either what it was
    before or the whole new file. Where it is a symbolic link, that holds for the file that it
    points to; a pipe or a device is written to as it is.

    Args:
        path: Where it shall stand.
        content: Its bytes, or what writes them to a binary file.

    Raises:
        OutputError: It cannot be written; a file at `path` is untouched.
    """
    if _is_pipe_or_device(path):
        _write_into(path, content)
        return
    temporary: Path | None = None
    try:
        if path.is_dir():
            raise IsADirectoryError(None, "is a folder")
        place = _follow(path)
        handle, name = tempfile.mkstemp(prefix=f".{place.name}.", suffix=".tmp", dir=place.parent)
        temporary = Path(name)
        with os.fdopen(handle, "wb") as file:
            _write(file, content)
        temporary.chmod(0o666 & ~_umask())
        put_in_place(temporary, place)
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror or error}; what stood there is untouched"
        ) from None
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


def put_in_place(written: Path, path: Path) -> None:
    """Flush a file that was written beside its place to the disk, and rename it there.

    Raises:
        OSError: It cannot be, or a pipe or device stands there; `path` is untouched.
    """
    if _is_pipe_or_device(path):
        raise OSError(None, "is a pipe or a device; name a file")
    with written.open("rb") as file:
        os.fsync(file.fileno())
    place = _follow(path)
    written.replace(place)
    _flush_folder(place.parent)


def check_writable(path: Path) -> None:
    """Find out before hours of training, not after, whether `path` can be written.

    Raises:
        OutputError: It cannot.
    """
    try:
        if path.is_dir():
            raise IsADirectoryError(None, "is a folder; name a file in it")
        if path.exists() and not os.access(path, os.W_OK):
            raise PermissionError(None, "is write-protected")
        if not _is_pipe_or_device(path):
            with tempfile.TemporaryFile(dir=_follow(path).parent):
                pass
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from None


def make_folder(path: Path) -> None:
    """Make a folder, and those above it, unless it is there.

    Raises:
        OutputError: It cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {path}: {error.strerror or error}") from None


def _is_pipe_or_device(path: Path) -> bool:
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _follow(path: Path) -> Path:
    """Return what a symbolic link points to; a rename would put a file in the link's place."""
    return Path(os.path.realpath(path))


def _write_into(path: Path, content: bytes | Callable[[BinaryIO], object]) -> None:
    try:
        with path.open("wb") as file:
            _write(file, content)
    except OSError as error:
        raise OutputError(f"cannot write to {path}: {error.strerror or error}") from None


def _write(file: BinaryIO, content: bytes | Callable[[BinaryIO], object]) -> None:
    if isinstance(content, bytes):
        file.write(content)
    else:
        content(file)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _flush_folder(folder: Path) -> None:
    """Make a rename survive a power cut, on systems where folders can be flushed."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
