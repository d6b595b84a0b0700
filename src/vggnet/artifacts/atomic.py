"""Files that are either whole or not there."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from vggnet.errors import OutputError


def write_file(path: Path, content: bytes | Callable[[BinaryIO], object]) -> None:
    """Write a file beside its place, flush it to the disk, and rename it there.

    Whatever fails, and whenever the process is killed, `path` is either what it was
    before or the whole new file.

    Args:
        path: Where it shall stand.
        content: Its bytes, or what writes them to a binary file.

    Raises:
        OutputError: It cannot be written; `path` is untouched.
    """
    temporary: Path | None = None
    try:
        if path.is_dir():
            raise IsADirectoryError(None, "is a folder")
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        temporary = Path(name)
        with os.fdopen(handle, "wb") as file:
            if isinstance(content, bytes):
                file.write(content)
            else:
                content(file)
        temporary.chmod(0o666 & ~_umask())
        put_in_place(temporary, path)
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
        OSError: It cannot be; `path` is untouched.
    """
    with written.open("rb") as file:
        os.fsync(file.fileno())
    written.replace(path)
    _flush_folder(path.parent)


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
        with tempfile.TemporaryFile(dir=path.parent):
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
