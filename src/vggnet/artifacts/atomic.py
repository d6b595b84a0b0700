"""Write files atomically: a path holds either its old content or the complete new content."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from vggnet.errors import OutputError

_HELD_UP = (5, 32)
"""Windows errors for a file that another program, such as a virus scanner, has open."""
_RETRIES = 8
"""Attempts to replace such a file, with pauses that add up to about one second."""


def write_file(path: Path, content: bytes | Callable[[BinaryIO], object]) -> None:
    """Write to a temporary file in the same folder, flush it to disk, rename it to `path`.

    If the write fails or the process is killed, `path` keeps its old content. A symbolic
    link is followed. A pipe or a device is refused: it may wait for a reader without end.

    Args:
        path: The file.
        content: Its bytes, or a function that writes them to a binary file.

    Raises:
        OutputError: The file cannot be written; `path` is unchanged.
    """
    temporary: Path | None = None
    try:
        target = _find_target(path)
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
        temporary = Path(name)
        with os.fdopen(handle, "wb") as file:
            if isinstance(content, bytes):
                file.write(content)
            else:
                content(file)
        temporary.chmod(0o666 & ~_umask())
        put_in_place(temporary, target)
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror or error}; an existing file is unchanged"
        ) from None
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


def put_in_place(written: Path, path: Path) -> None:
    """Flush a complete file to disk and rename it to `path`, on the same file system.

    Raises:
        OSError: The rename fails, or `path` is no regular file; `path` is unchanged.
    """
    target = _find_target(path)
    with written.open("r+b") as file:  # Windows flushes only files that are open for writing
        os.fsync(file.fileno())
    _replace(written, target)
    _flush_folder(target.parent)


def check_writable(path: Path) -> None:
    """Check before hours of training that `path` can be written.

    Raises:
        OutputError: It cannot.
    """
    try:
        target = _find_target(path)
        if target.exists() and not os.access(target, os.W_OK):
            raise PermissionError(None, "is write-protected")
        with tempfile.TemporaryFile(dir=target.parent):
            pass
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from None


def make_folder(path: Path) -> None:
    """Create a folder and its parents if they do not exist.

    Raises:
        OutputError: The folder cannot be created.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {path}: {error.strerror or error}") from None


def _find_target(path: Path) -> Path:
    """Return the target of a symbolic link; a rename would replace the link itself.

    Raises:
        OSError: It exists and is no regular file.
    """
    target = Path(os.path.realpath(path))
    try:
        mode = target.stat().st_mode
    except OSError:
        return target
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(None, "is a folder; name a file in it")
    if not stat.S_ISREG(mode):
        raise OSError(None, "is a pipe or a device; name a file")
    return target


def _replace(written: Path, target: Path) -> None:
    """Rename a file; wait if Windows says that another program has the target open."""
    for attempt in range(1, _RETRIES + 1):
        try:
            written.replace(target)
            return
        except PermissionError as error:
            if getattr(error, "winerror", None) not in _HELD_UP or attempt == _RETRIES:
                raise
            time.sleep(0.01 * 2 ** (attempt - 1))


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _flush_folder(folder: Path) -> None:
    """Flush the rename itself to disk, on systems that can flush folders."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
