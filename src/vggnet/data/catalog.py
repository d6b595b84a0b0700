"""Which datasets exist: their files, hashes and classes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SplitFiles:
    """The two IDX files of a split: name without `.gz`, and SHA-256 of the unpacked bytes.

    Hashing what is inside lets one hash verify the raw file and any gzip of it.
    """

    images: str
    images_sha256: str
    labels: str
    labels_sha256: str


@dataclass(frozen=True)
class CatalogEntry:
    """A dataset that vggnet knows by name."""

    name: str
    folder: str
    """Its folder in torchvision's layout: DATA_DIR/<folder>/raw/."""
    classes: tuple[str, ...]
    train: SplitFiles
    test: SplitFiles
    licence: str
    bundled: bool = False
    """Whether the files are part of this package."""


CATALOG: dict[str, CatalogEntry] = {
    "mnist": CatalogEntry(
        name="mnist",
        folder="MNIST",
        classes=tuple("0123456789"),
        train=SplitFiles(
            "train-images-idx3-ubyte",
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "train-labels-idx1-ubyte",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        ),
        test=SplitFiles(
            "t10k-images-idx3-ubyte",
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "t10k-labels-idx1-ubyte",
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
        licence="CC BY-SA 3.0, Yann LeCun and Corinna Cortes",
        bundled=True,
    ),
}
