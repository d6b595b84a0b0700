"""Where a catalog's dataset is: in the package, on the system, in a folder, in the cache."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from vggnet.data.download import host_of
from vggnet.data.files import (
    File,
    cache_folder,
    check_name,
    is_file,
    is_folder,
    open_file,
    os_errors,
)
from vggnet.data.published import Archive, CatalogEntry, PublishedFile
from vggnet.data.sources.archive import open_archive, read_tar
from vggnet.data.sources.idx import canonical_name
from vggnet.errors import DataError

BUNDLED = Path(__file__).parent
"""The package's own data: a folder for each bundled dataset."""


@dataclass(frozen=True)
class Place:
    """Where a dataset is, or where it would be downloaded to."""

    folder: Path | None
    """None for the cache of a user who has none."""
    words: str
    """The place, for people."""
    downloads: bool = False
    """Whether missing files may be downloaded into it."""

    @property
    def path(self) -> Path:
        """The folder.

        Raises:
            DataError: There is none.
        """
        if self.folder is None:
            raise DataError(
                "there is no folder for downloads that this user may read; name one in "
                "VGGNET_CACHE_DIR"
            )
        return self.folder


@dataclass(frozen=True)
class FoundFile:
    """One file of a dataset."""

    file: File
    verified: bool
    """Whether it is from an archive that has the published hash."""


def find_place(
    entry: CatalogEntry,
    wanted: Sequence[PublishedFile],
    data_dir: Path | None = None,
    download: bool = True,
) -> Place:
    """Find a dataset on disk, or say where it would be downloaded from.

    Args:
        entry: The dataset.
        wanted: The files that must be there.
        data_dir: The only folder to look in, in torchvision's layout or its `raw` itself.
        download: Whether files that are not on disk may be downloaded.

    Raises:
        DataError: It is not there and may not be downloaded; the message has the places where
            it could be. Or `data_dir` may not be read, or its name is not valid UTF-8.
    """
    if data_dir:
        check_name(str(data_dir))
    places = list(_in_folder(entry, data_dir) if data_dir else _by_default(entry, download))
    enough = any if data_dir else all  # of a named folder, the message names the missing file
    for place in places:
        if place.folder and enough(_is_there(entry, file, place.folder) for file in wanted):
            return place
    if data_dir:
        raise DataError(
            f"no {entry.name} in {data_dir}: expected {places[0].path / wanted[0].name} or the "
            "same with .gz; without --data-dir it is looked for elsewhere, or downloaded"
        )
    hosts = list(dict.fromkeys(map(host_of, addresses(entry, ""))))
    if not download or not hosts:
        looked = " and ".join(str(place.path) for place in places)
        way_out = "leave out --no-download, or " if hosts else ""
        raise DataError(
            f"{entry.name} is not on this machine: looked in {looked}; {way_out}name the folder "
            "that holds it, in torchvision's layout: --data-dir"
        )
    return Place(places[-1].folder, f"would be downloaded from {' or '.join(hosts)}", True)


def find_files(
    entry: CatalogEntry, wanted: Sequence[PublishedFile], folder: Path
) -> dict[PublishedFile, FoundFile]:
    """Return the files of a dataset that a folder has: raw, gzipped, or in an archive.

    An archive must be the published one: it is compared by its MD5 before it is opened.

    Raises:
        DataError: An archive is another one, or the folder may not be read.
    """
    found = {
        file: FoundFile(open_file(path), verified=False)
        for file in wanted
        if (path := _find_unpacked(entry, file, folder))
    }
    for archive in entry.archives:
        missing = [file for file in wanted if file not in found]
        path = folder / archive.name
        if missing and is_file(path):
            compare_hash(path, _md5(path, path.stat().st_mtime_ns), archive.md5, "MD5")
            names = {name: file for file in missing for name in _names_in(archive, file)}
            opened = _open_members(path, list(names))
            found |= {names[name]: FoundFile(file, verified=True) for name, file in opened.items()}
    return found


def compare_hash(
    path: Path | str, found: str, published: str | None, kind: str = "SHA-256"
) -> None:
    """Check that a file is the published one.

    Raises:
        DataError: It has another hash.
    """
    if found != published:
        raise DataError(
            f"{path} is not the published file: its {kind} is {found[:16]}…, expected "
            f"{str(published)[:16]}…; get it again"
        )


def compute_md5(path: Path) -> str:
    """Return the MD5 of a file."""
    with os_errors(), path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def addresses(entry: CatalogEntry, name: str) -> list[str]:
    """Return where a file can be downloaded: VGGNET_MIRROR's servers, or the published ones.

    That variable holds one or more addresses, separated by blanks, of folders in torchvision's
    layout.
    """
    own = os.environ.get("VGGNET_MIRROR", "").split()
    if own:
        return [f"{mirror.rstrip('/')}/{entry.folder}/raw/{name}" for mirror in own]
    return [f"{mirror}{name}" for mirror in entry.mirrors]


@lru_cache
def _md5(path: Path, changed: int) -> str:
    """Hash an archive once in a process, although each split asks for it."""
    return compute_md5(path)


def _is_there(entry: CatalogEntry, file: PublishedFile, folder: Path) -> bool:
    return _find_unpacked(entry, file, folder) is not None or any(
        is_file(folder / archive.name) for archive in entry.archives
    )


def _find_unpacked(entry: CatalogEntry, file: PublishedFile, folder: Path) -> Path | None:
    """Return a file outside any archive, under its published name or one that unpackers make."""
    names = [file.name, f"{file.name}.gz"]
    names += [name for archive in entry.archives for name in _names_in(archive, file)]
    for name in names:
        if is_file(folder / name):
            return folder / name
    if not is_folder(folder):
        return None
    with os_errors():
        alike = [path for path in sorted(folder.iterdir()) if _is_alike(path, file)]
    for path in alike:
        if is_file(path):
            return path
        with os_errors():
            inside = [
                one for one in sorted(path.iterdir()) if _is_alike(one, file) and is_file(one)
            ]
        if inside:
            return inside[0]
    return None


def _is_alike(path: Path, file: PublishedFile) -> bool:
    return canonical_name(path.name) == canonical_name(file.name)


def _names_in(archive: Archive, file: PublishedFile) -> list[str]:
    """Return the names that a file can have in an archive or where it was unpacked."""
    base = file.published_name
    # CIFAR's Python version has the same files without a suffix.
    return [archive.prefix + name for name in (base, base.removesuffix(".bin"))]


def _open_members(path: Path, names: Sequence[str]) -> dict[str, File]:
    if path.suffix == ".zip":
        return {file.name: file for file in open_archive(path).files if file.name in names}
    return read_tar(path, names)


def _in_folder(entry: CatalogEntry, data_dir: Path) -> Iterator[Place]:
    for path in (data_dir / entry.folder / "raw", data_dir / "raw", data_dir):
        yield Place(path, f"in {path}")


def _by_default(entry: CatalogEntry, download: bool) -> Iterator[Place]:
    if entry.bundled:
        yield Place(BUNDLED / entry.name, "part of this package")
    if entry.system:
        yield Place(entry.system, f"in {entry.system}")
    cache = cache_folder("datasets")
    raw = cache / entry.folder / "raw" if cache else None
    yield Place(raw, f"in {raw}", download)
