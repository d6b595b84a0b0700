"""Which datasets exist: their files, hashes, classes, and where they are to be had.

Hashes. Those of MNIST's and Fashion-MNIST's unpacked bytes are SHA-256, computed from
the files themselves (the bundled ones, and those of Debian's package
`dataset-fashion-mnist`). Of KMNIST, QMNIST and EMNIST only the MD5 of the published
archives was to be had; those, and Fashion-MNIST's, are the ones that torchvision's
`datasets/mnist.py` pins. So a raw, unpacked file of these three cannot be compared with
anything, and `vggnet data verify` says that.
"""

from __future__ import annotations

import string
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class SplitFiles:
    """The two IDX files of a split: name without `.gz`, and hashes.

    SHA-256 is of the unpacked bytes: it verifies the raw file and any gzip of it. MD5 is
    of the gzip as it was published, and counts where there is no SHA-256.
    """

    images: str
    images_sha256: str | None
    labels: str
    labels_sha256: str | None
    images_md5: str | None = None
    labels_md5: str | None = None

    @property
    def files(self) -> tuple[PublishedFile, PublishedFile]:
        """The images' file and the labels'."""
        return (
            PublishedFile(self.images, self.images_sha256, self.images_md5),
            PublishedFile(self.labels, self.labels_sha256, self.labels_md5),
        )


@dataclass(frozen=True)
class PublishedFile:
    """One IDX file; see `SplitFiles`."""

    name: str
    sha256: str | None
    md5: str | None


@dataclass(frozen=True)
class Archive:
    """A zip that holds every file of a dataset, each gzipped."""

    name: str
    md5: str
    prefix: str
    """Folder inside the zip, with its slash."""


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
    system: Path | None = None
    """Where a Linux distribution's package puts them."""
    mirrors: tuple[str, ...] = ()
    """Addresses that a file's name is appended to, in the order in which they are tried."""
    archive: Archive | None = None
    """The one file that a mirror has instead of four."""
    transposed: bool = False
    """Whether images are stored column by column."""
    first_label: int = 0
    """The label that means class 0."""
    characters: bool = True
    """Whether images are of written characters, white on black."""

    @property
    def files(self) -> tuple[PublishedFile, ...]:
        """All four files, the training set's first."""
        return (*self.train.files, *self.test.files)


_DIGITS = tuple(string.digits)
_EMNIST_FILES = Archive("gzip.zip", "58c8d27c78d21e728a6bc7b3cc06412e", "gzip/")
_EMNIST_MIRRORS = (
    "https://biometrics.nist.gov/cs_links/EMNIST/",
    "https://www.itl.nist.gov/iaui/vip/cs_links/EMNIST/",
)
_MERGED = (*string.digits, *string.ascii_uppercase, *"abdefghnqrt")
"""EMNIST's 47 classes: the capitals that look like their small letters stand for both."""


def _emnist(split: str, classes: tuple[str, ...], first_label: int = 0) -> CatalogEntry:
    """Return a split of EMNIST; arXiv 1702.05373, table 2, orders its classes."""
    train, test = (
        SplitFiles(f"{stem}-images-idx3-ubyte", None, f"{stem}-labels-idx1-ubyte", None)
        for stem in (f"emnist-{split}-train", f"emnist-{split}-test")
    )
    return CatalogEntry(
        name=f"emnist-{split}",
        folder="EMNIST",
        classes=classes,
        train=train,
        test=test,
        licence="NIST, arXiv 1702.05373",
        mirrors=_EMNIST_MIRRORS,
        archive=_EMNIST_FILES,
        transposed=True,
        first_label=first_label,
    )


_ENTRIES = (
    CatalogEntry(
        name="mnist",
        folder="MNIST",
        classes=_DIGITS,
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
    CatalogEntry(
        name="fashion-mnist",
        folder="FashionMNIST",
        classes=(
            "T-shirt/top",
            "Trouser",
            "Pullover",
            "Dress",
            "Coat",
            "Sandal",
            "Shirt",
            "Sneaker",
            "Bag",
            "Ankle boot",
        ),
        train=SplitFiles(
            "train-images-idx3-ubyte",
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "train-labels-idx1-ubyte",
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "25c81989df183df01b3e8a0aad5dffbe",
        ),
        test=SplitFiles(
            "t10k-images-idx3-ubyte",
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "t10k-labels-idx1-ubyte",
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
            "bef4ecab320f06d8554ea6380940ec79",
            "bb300cfdad3c16e7a12a480ee83cd310",
        ),
        licence="MIT, Zalando SE",
        characters=False,
        system=Path("/usr/share/datasets/fashion-mnist"),
        mirrors=(
            "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
            "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        ),
    ),
    CatalogEntry(
        name="kmnist",
        folder="KMNIST",
        classes=("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
        train=SplitFiles(
            "train-images-idx3-ubyte",
            None,
            "train-labels-idx1-ubyte",
            None,
            "bdb82020997e1d708af4cf47b453dcf7",
            "e144d726b3acfaa3e44228e80efcd344",
        ),
        test=SplitFiles(
            "t10k-images-idx3-ubyte",
            None,
            "t10k-labels-idx1-ubyte",
            None,
            "5c965bf0a639b31b8f53240b1b52f4d7",
            "7320c461ea6c1c855c0b718fb2a4b134",
        ),
        licence="CC BY-SA 4.0, CODH (doi:10.20676/00000341)",
        mirrors=(
            "https://codh.rois.ac.jp/kmnist/dataset/kmnist/",
            "http://codh.rois.ac.jp/kmnist/dataset/kmnist/",
        ),
    ),
    CatalogEntry(
        name="qmnist",
        folder="QMNIST",
        classes=_DIGITS,
        train=SplitFiles(
            "qmnist-train-images-idx3-ubyte",
            None,
            "qmnist-train-labels-idx2-int",
            None,
            "ed72d4157d28c017586c42bc6afe6370",
            "0058f8dd561b90ffdd0f734c6a30e5e4",
        ),
        test=SplitFiles(
            "qmnist-test-images-idx3-ubyte",
            None,
            "qmnist-test-labels-idx2-int",
            None,
            "1394631089c404de565df7b7aeaf9412",
            "5b5b05890a5e13444e108efe57b788aa",
        ),
        licence="BSD, arXiv 1905.10498",
        mirrors=(
            "https://raw.githubusercontent.com/facebookresearch/qmnist/master/",
            "https://github.com/facebookresearch/qmnist/raw/master/",
        ),
    ),
    _emnist("balanced", _MERGED),
    _emnist("byclass", (*string.digits, *string.ascii_uppercase, *string.ascii_lowercase)),
    _emnist("bymerge", _MERGED),
    _emnist("letters", tuple(string.ascii_lowercase), first_label=1),
    _emnist("digits", _DIGITS),
)

CATALOG: dict[str, CatalogEntry] = {entry.name: entry for entry in _ENTRIES}
