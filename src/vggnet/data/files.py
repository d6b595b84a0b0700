"""The files of a dataset, in a folder, in an archive or alone, behind one interface.

A folder is walked once, without recursion. Only regular files are ever opened: a pipe or a
device would block or never end.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path
from typing import IO

import platformdirs

from vggnet.errors import DataError

MAX_FILE_BYTES = 1 << 30
"""The largest file that is read whole; no encoded image is this large."""

_MAX_TEXT_BYTES = 10_000_000
"""The largest file of names or settings that is read."""

_SYSTEM_FILES = {"thumbs.db", "desktop.ini"}

_VIRTUAL = ("/proc", "/sys")
"""Where Linux shows its processes and devices as files, whose links lead to every other folder."""

_NOT_THERE = {errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP}

_NO_WAIT = getattr(os, "O_NONBLOCK", 0)  # Windows has no such flag, and no pipes among files


@dataclass(frozen=True)
class File:
    """A file that can be opened, on disk or in an archive."""

    name: str
    """Path within its tree, parts separated by "/"."""
    path: str
    """What messages call it."""
    size: int
    """Bytes, uncompressed."""
    stamp: int
    """Changes with the content: time of change in nanoseconds, or a zip entry's CRC-32."""
    open: Callable[[], IO[bytes]] = field(repr=False, compare=False)
    """Opens it for reading; raises OSError, or zipfile.BadZipFile in a damaged archive."""

    @property
    def base(self) -> str:
        """The last part of the name."""
        return self.name.rpartition("/")[2]

    @property
    def folder(self) -> str:
        """The name without its last part; empty at the top of the tree."""
        return self.name.rpartition("/")[0]

    def read(self) -> bytes:
        """Return all bytes.

        Raises:
            DataError: There are more than `MAX_FILE_BYTES`.
            OSError, zipfile.BadZipFile: It cannot be read.
        """
        if self.size > MAX_FILE_BYTES:
            raise DataError(f"{self.size / 1e9:,.1f} GB are too much for one file")
        with self.open() as file:
            return file.read(self.size)


@dataclass(frozen=True)
class Tree:
    """All files below one path, or the one file that the path names."""

    path: Path
    files: tuple[File, ...]
    """Sorted by name."""
    folders: tuple[str, ...] = ()
    """Names of all folders, empty ones included; the top is not among them."""
    hidden: tuple[str, ...] = ()
    """Hidden and system files and folders, which are left out."""
    is_file: bool = False
    """Whether the path names one file, not a folder or an archive."""
    close: Callable[[], None] = field(default=lambda: None, repr=False, compare=False)
    """Closes the archive, after which its files cannot be opened."""


@contextmanager
def os_errors() -> Iterator[None]:
    """Turn an OSError into a DataError that names the file and the reason.

    Raises:
        DataError: In place of an OSError.
    """
    try:
        yield
    except OSError as error:
        name = str(error.filename)
        shown = name if len(name) < 1_000 else f"{name[:200]}…"
        raise DataError(f"cannot read {shown}: {error.strerror or error}") from None


def check_name(name: str) -> None:
    """Refuse a name that no model file can hold and no terminal can show.

    Raises:
        DataError: It is not valid UTF-8.
    """
    try:
        name.encode()
    except UnicodeEncodeError:
        shown = os.fsencode(name).decode(errors="backslashreplace")
        raise DataError(f"the name {shown} is not valid UTF-8; rename it") from None


@os_errors()
def file_mode(path: Path) -> int | None:
    """Return the mode of what is at a path, links followed; None if nothing is there.

    `Path.exists` and `Path.is_dir` return False for a path that this user may not read
    (Python 3.12 and later), which looks like a missing one.

    Raises:
        DataError: The system does not tell, for example because a folder is locked.
    """
    try:
        return path.stat().st_mode
    except ValueError:  # a null character
        return None
    except OSError as error:
        if error.errno in _NOT_THERE:
            return None
        raise


def is_folder(path: Path) -> bool:
    """Return whether a folder is at a path; raises as `file_mode`."""
    return stat.S_ISDIR(file_mode(path) or 0)


def is_file(path: Path) -> bool:
    """Return whether a regular file is at a path; raises as `file_mode`."""
    return stat.S_ISREG(file_mode(path) or 0)


def cache_folder(kind: str) -> Path | None:
    """Return the user's folder for downloads or decoded images.

    VGGNET_CACHE_DIR names the folder that it is in; the default is the platform's.

    Args:
        kind: The folder's name: "datasets", "decoded" or "weights".

    Returns:
        The folder, which need not exist; None if the user has no home or may not read it.
    """
    named = os.environ.get("VGGNET_CACHE_DIR")
    try:
        folder = (Path(named) if named else platformdirs.user_cache_path("vggnet")) / kind
        folder.stat()
    except (FileNotFoundError, NotADirectoryError):
        return folder
    except (OSError, RuntimeError):
        return None
    return folder


@os_errors()
def open_file(path: Path) -> File:
    """Return a file on disk.

    Raises:
        DataError: There is none.
    """
    status = path.stat()
    return File(
        path.name, str(path), status.st_size, status.st_mtime_ns, lambda: open_regular(path)
    )


def open_regular(path: str | Path) -> BufferedReader:
    """Open a regular file for reading, without ever waiting for a pipe's other end.

    Raises:
        OSError: It is something else, or cannot be opened.
    """
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | _NO_WAIT))  # noqa: SIM115
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return file


def read_text(path: str | Path) -> str:
    """Return the text of a small regular file in UTF-8.

    Raises:
        OSError: It cannot be read, is something else, or has more than `_MAX_TEXT_BYTES`.
        UnicodeDecodeError: It is not in UTF-8.
    """
    with open_regular(path) as file:
        content = file.read(_MAX_TEXT_BYTES + 1)
    if len(content) > _MAX_TEXT_BYTES:
        size = f"larger than {_MAX_TEXT_BYTES / 1e6:.0f} MB"
        raise OSError(errno.EFBIG, size, str(path))
    return content.decode()


def is_hidden(base: str) -> bool:
    """Return whether a name is one that systems and editors put into folders."""
    return base.startswith((".", "__")) or base.lower() in _SYSTEM_FILES


@os_errors()
def walk_folder(path: Path) -> Tree:
    """List all files below a folder.

    Links are followed, but no folder is entered twice, so a link loop ends. Virtual file systems
    are left out: one has hundreds of thousands of files that are no images.

    Raises:
        DataError: A folder may not be read, or the path is in a virtual file system.
    """
    files: list[File] = []
    folders: list[str] = []
    hidden: list[str] = []
    waiting = [(str(path), "")]
    top = path.stat()
    entered = {(top.st_dev, top.st_ino)}
    virtual = {Path(name).stat().st_dev for name in _VIRTUAL if os.path.ismount(name)}
    if top.st_dev in virtual:
        raise DataError(f"{path} shows the system's processes or devices; name a folder of files")
    while waiting:
        place, prefix = waiting.pop()
        with os.scandir(place) as entries:
            for entry in entries:
                name = prefix + entry.name
                if is_hidden(entry.name):
                    hidden.append(name)
                elif not _is_folder(entry):
                    files.append(_entry_file(entry, name))
                elif (identity := _identity(entry)) in entered:
                    hidden.append(f"{name} (a second way to the same folder)")
                elif identity[0] in virtual:
                    hidden.append(f"{name} (processes or devices of the system)")
                else:
                    entered.add(identity)
                    folders.append(name)
                    waiting.append((entry.path, f"{name}/"))
    return Tree(
        path,
        tuple(sorted(files, key=lambda file: file.name)),
        tuple(sorted(folders)),
        tuple(sorted(hidden)),
    )


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _identity(entry: os.DirEntry[str]) -> tuple[int, int]:
    status = entry.stat()
    return status.st_dev, status.st_ino


def _entry_file(entry: os.DirEntry[str], name: str) -> File:
    """Return a file of a folder; one that cannot be read says so when it is opened."""
    path = entry.path
    try:
        status = entry.stat()
    except OSError:  # a link to nothing
        return File(name, path, 0, 0, lambda: open_regular(path))
    return File(name, path, status.st_size, status.st_mtime_ns, lambda: open_regular(path))
