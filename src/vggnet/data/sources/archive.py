"""Archives as files; nothing is unpacked to disk."""

from __future__ import annotations

import errno
import io
import tarfile
import zipfile
import zlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import IO

from vggnet.data.files import File, Tree, is_hidden, os_errors
from vggnet.errors import DataError

_MOST_CHARACTERS = 4_096
"""Of an entry's name, as systems limit a path."""


def is_archive(path: Path) -> bool:
    """Return whether a file's name says that it is a zip archive."""
    return path.suffix.lower() == ".zip"


@os_errors()
def open_archive(path: Path) -> Tree:
    r"""List the files of a zip archive.

    Entries' names are normalized: "\" is "/", and a leading "/", "." and empty parts are
    dropped.

    Raises:
        DataError: It is damaged, or an entry's name leads out of it.
    """
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise DataError(f"{path} is not a readable zip archive: {error}") from None
    try:
        return _list_entries(archive, path)
    except BaseException:
        archive.close()
        raise


def _list_entries(archive: zipfile.ZipFile, path: Path) -> Tree:
    files: dict[str, File] = {}
    folders: set[str] = set()
    hidden: set[str] = set()
    for entry in archive.infolist():
        parts = _split_name(entry.filename, path)
        name = "/".join(parts)
        depth = next((depth for depth, part in enumerate(parts, 1) if is_hidden(part)), None)
        if depth:
            hidden.add("/".join(parts[:depth]))
        elif not parts or entry.is_dir():  # is_dir fails for an empty name
            folders.add(name)
        else:
            opener = partial(_open_entry, archive, entry)
            files[name] = File(name, f"{path}/{name}", entry.file_size, entry.CRC, opener)
    return Tree(
        path,
        tuple(files[name] for name in sorted(files)),
        tuple(sorted(folders - {""})),
        tuple(sorted(hidden)),
        close=archive.close,
    )


@os_errors()
def read_tar(path: Path, names: Sequence[str]) -> dict[str, File]:
    """Read files of a tar archive into memory, in one pass.

    Only for an archive whose hash was checked: a tar file does not say beforehand how large
    its files are.

    Raises:
        DataError: It is damaged.
    """
    found: dict[str, File] = {}
    try:
        with tarfile.open(path, "r|*") as archive:
            for member in archive:
                if member.name in names and (opened := archive.extractfile(member)):
                    content = opened.read()
                    place = f"{path}/{member.name}"
                    opener = partial(io.BytesIO, content)
                    found[member.name] = File(member.name, place, len(content), 0, opener)
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise DataError(f"{path} is damaged ({error})") from None
    return found


def _split_name(name: str, path: Path) -> list[str]:
    if len(name) > _MOST_CHARACTERS:
        raise DataError(f"{path} has an entry whose name has {len(name):,} characters")
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
    if ".." in parts:
        raise DataError(f"{path} has an entry that leads out of the archive: {name!r}")
    return parts


def _open_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> IO[bytes]:
    try:
        return archive.open(entry)
    except (RuntimeError, NotImplementedError) as error:  # encrypted, or an unknown compression
        raise OSError(errno.EINVAL, str(error), entry.filename) from None
