"""What is published of a dataset: files, hashes, classes, and where to download them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class PublishedFile:
    """One file of a dataset."""

    name: str
    """Unpacked, so without `.gz`."""
    sha256: str | None = None
    """Of the unpacked bytes; if it is known, the MD5 is not needed."""
    md5: str | None = None
    """Of the file as published."""
    packed: bool = True
    """Whether it is published as `name.gz`."""

    @property
    def published_name(self) -> str:
        """The name under which it is downloaded."""
        return f"{self.name}.gz" if self.packed else self.name


@dataclass(frozen=True)
class Archive:
    """A zip or tar file that holds every file of a dataset."""

    name: str
    md5: str
    prefix: str
    """Folder of the files inside, with "/"."""


@dataclass(frozen=True)
class CatalogEntry:
    """A dataset that vggnet knows by name."""

    name: str
    folder: str
    """Its folder in torchvision's layout: DATA_DIR/<folder>/raw/."""
    classes: tuple[str, ...]
    train: tuple[PublishedFile, ...]
    test: tuple[PublishedFile, ...]
    licence: str
    source: str = "idx"
    """The module of `vggnet.data.sources` that reads its files."""
    bundled: bool = False
    """Whether the files are part of this package."""
    system: Path | None = None
    """Where a Linux distribution's package puts them."""
    mirrors: tuple[str, ...] = ()
    """Addresses to which a file's name is appended, in the order in which they are tried."""
    archives: tuple[Archive, ...] = ()
    """Archives that hold the files; the first one is downloaded."""
    transposed: bool = False
    """Whether images are stored column by column."""
    first_label: int = 0
    """The label that means class 0."""
    characters: bool = True
    """Whether images are written characters, white on black."""


def idx_pair(
    images: str,
    labels: str,
    images_sha256: str | None = None,
    labels_sha256: str | None = None,
    images_md5: str | None = None,
    labels_md5: str | None = None,
) -> tuple[PublishedFile, PublishedFile]:
    """Return the two IDX files of a split."""
    return (
        PublishedFile(images, images_sha256, images_md5),
        PublishedFile(labels, labels_sha256, labels_md5),
    )
