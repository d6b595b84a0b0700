"""Where a catalog's dataset is: in the package, on the system, in a folder, in the cache."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from vggnet.data.catalog import CatalogEntry, PublishedFile, SplitFiles
from vggnet.data.idx import Source
from vggnet.data.listing import check_name, refusals
from vggnet.errors import DataError

BUNDLED = Path(__file__).parent
"""The package's own data: one folder a bundled dataset."""

PACKED = ".gz"


@dataclass(frozen=True)
class Place:
    """Where a dataset is, or where it would be downloaded to."""

    folder: Path | None
    """None is the cache of a user who has none."""
    words: str
    """To people."""
    downloads: bool = False
    """Whether missing files may be fetched into it."""

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


def cache_folder() -> Path | None:
    """Return the folder that downloads go to, in torchvision's layout.

    VGGNET_CACHE_DIR names the one that it stands in, else that is the platform's; None where
    there is no home for it, or what is there may not be read.
    """
    named = os.environ.get("VGGNET_CACHE_DIR")
    with suppress(OSError, RuntimeError):
        folder = (Path(named) if named else platformdirs.user_cache_path("vggnet")) / "datasets"
        folder.exists()  # raises where it may not be read
        return folder
    return None


def find_place(
    entry: CatalogEntry, split: SplitFiles, data_dir: Path | None = None, download: bool = True
) -> Place:
    """Find a dataset on the disk, or say where it would be downloaded from.

    Args:
        entry: The dataset.
        split: The one whose files must be there.
        data_dir: The only folder to look in, in torchvision's layout or its `raw` itself.
        download: Whether what is on no disk may be fetched.

    Raises:
        DataError: It is not there, and is not to be downloaded; naming where it could be. Or
            `data_dir` may not be read, or has a name that is not valid UTF-8.
    """
    if data_dir:
        check_name(str(data_dir))
    places = list(_in_folder(entry, data_dir) if data_dir else _by_default(entry, download))
    enough = any if data_dir else all  # a file that a named folder lacks is missed by its name
    for place in places:
        if place.folder and enough(find_file(entry, file, place.folder) for file in split.files):
            return place
    if data_dir:
        raise DataError(
            f"no {entry.name} in {data_dir}: expected {places[0].path / split.images} or the "
            "same with .gz; without --data-dir it is looked for elsewhere, or downloaded"
        )
    hosts = list(dict.fromkeys(url.split("/")[2] for url in addresses(entry, "")))
    if not download or not hosts:
        looked = " and ".join(str(place.path) for place in places)
        way_out = "leave --no-download out, or " if hosts else ""
        raise DataError(
            f"{entry.name} is not on this machine: looked in {looked}; {way_out}name the folder "
            "that holds it, in torchvision's layout: --data-dir"
        )
    return Place(places[-1].folder, f"would be downloaded from {' or '.join(hosts)}", True)


@refusals()
def find_file(entry: CatalogEntry, file: PublishedFile, folder: Path) -> Source | None:
    """Return a dataset's file: raw, gzipped, or gzipped inside the dataset's archive.

    Raises:
        DataError: The archive is damaged, or the folder may not be read.
    """
    for path in (folder / file.name, folder / f"{file.name}{PACKED}"):
        if path.is_file():
            return path
    if entry.archive and (folder / entry.archive.name).is_file():
        try:
            inside = zipfile.Path(folder / entry.archive.name, entry.archive.prefix)
        except zipfile.BadZipFile as error:
            raise DataError(f"{folder / entry.archive.name} is damaged ({error})") from None
        packed = inside / f"{file.name}{PACKED}"
        return packed if packed.is_file() else None
    return None


def addresses(entry: CatalogEntry, name: str) -> list[str]:
    """Return where a file can be had: VGGNET_MIRROR's servers alone, or the published ones.

    That variable holds one or more addresses, with blanks between, of folders in
    torchvision's layout.
    """
    own = os.environ.get("VGGNET_MIRROR", "").split()
    if own:
        return [f"{mirror.rstrip('/')}/{entry.folder}/raw/{name}" for mirror in own]
    return [f"{mirror}{name}" for mirror in entry.mirrors]


def _in_folder(entry: CatalogEntry, data_dir: Path) -> Iterator[Place]:
    for path in (data_dir / entry.folder / "raw", data_dir / "raw", data_dir):
        yield Place(path, f"in {path}")


def _by_default(entry: CatalogEntry, download: bool) -> Iterator[Place]:
    if entry.bundled:
        yield Place(BUNDLED / entry.name, "part of this package")
    if entry.system:
        yield Place(entry.system, f"in {entry.system}")
    cache = cache_folder()
    raw = cache / entry.folder / "raw" if cache else None
    yield Place(raw, f"in {raw}", download)
