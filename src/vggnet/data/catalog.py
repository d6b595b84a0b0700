"""The datasets that are known by name: files, hashes, classes, and where to download them.

SHA-256 hashes are of unpacked bytes, computed from the files themselves: MNIST's are bundled,
and Fashion-MNIST's are those of Debian's package `dataset-fashion-mnist`. MD5 hashes are of
files as published: those of CIFAR are on https://www.cs.toronto.edu/~kriz/cifar.html, and all
others are pinned in torchvision's `datasets/mnist.py` and `datasets/svhn.py`. An unpacked file
that has no SHA-256 here cannot be verified; `vggnet data verify` says so.
"""

from __future__ import annotations

import string
from pathlib import Path

from vggnet.data.published import Archive, CatalogEntry, PublishedFile, idx_pair

_DIGITS = tuple(string.digits)
_EMNIST_FILES = Archive("gzip.zip", "58c8d27c78d21e728a6bc7b3cc06412e", "gzip/")
_EMNIST_MIRRORS = (
    "https://biometrics.nist.gov/cs_links/EMNIST/",
    "https://www.itl.nist.gov/iaui/vip/cs_links/EMNIST/",
)
_MERGED = (*string.digits, *string.ascii_uppercase, *"abdefghnqrt")
"""EMNIST's 47 classes: capitals that look like their small letters stand for both."""

_CIFAR_MIRROR = "https://www.cs.toronto.edu/~kriz/"
_CIFAR_10 = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
_CIFAR_100 = (
    "apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle", "bottle",
    "bowl", "boy", "bridge", "bus", "butterfly", "camel", "can", "castle", "caterpillar", "cattle",
    "chair", "chimpanzee", "clock", "cloud", "cockroach", "couch", "crab", "crocodile", "cup",
    "dinosaur", "dolphin", "elephant", "flatfish", "forest", "fox", "girl", "hamster", "house",
    "kangaroo", "keyboard", "lamp", "lawn_mower", "leopard", "lion", "lizard", "lobster", "man",
    "maple_tree", "motorcycle", "mountain", "mouse", "mushroom", "oak_tree", "orange", "orchid",
    "otter", "palm_tree", "pear", "pickup_truck", "pine_tree", "plain", "plate", "poppy",
    "porcupine", "possum", "rabbit", "raccoon", "ray", "road", "rocket", "rose", "sea", "seal",
    "shark", "shrew", "skunk", "skyscraper", "snail", "snake", "spider", "squirrel", "streetcar",
    "sunflower", "sweet_pepper", "table", "tank", "telephone", "television", "tiger", "tractor",
    "train", "trout", "tulip", "turtle", "wardrobe", "whale", "willow_tree", "wolf", "woman",
    "worm",
)  # fmt: skip


def _emnist(split: str, classes: tuple[str, ...], first_label: int = 0) -> CatalogEntry:
    """Return a split of EMNIST; arXiv 1702.05373, table 2, orders its classes."""
    train, test = (
        idx_pair(f"{stem}-images-idx3-ubyte", f"{stem}-labels-idx1-ubyte")
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
        archives=(_EMNIST_FILES,),
        transposed=True,
        first_label=first_label,
    )


_ENTRIES = (
    CatalogEntry(
        name="mnist",
        folder="MNIST",
        classes=_DIGITS,
        train=idx_pair(
            "train-images-idx3-ubyte",
            "train-labels-idx1-ubyte",
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        ),
        test=idx_pair(
            "t10k-images-idx3-ubyte",
            "t10k-labels-idx1-ubyte",
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
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
        train=idx_pair(
            "train-images-idx3-ubyte",
            "train-labels-idx1-ubyte",
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "25c81989df183df01b3e8a0aad5dffbe",
        ),
        test=idx_pair(
            "t10k-images-idx3-ubyte",
            "t10k-labels-idx1-ubyte",
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
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
        train=idx_pair(
            "train-images-idx3-ubyte",
            "train-labels-idx1-ubyte",
            None,
            None,
            "bdb82020997e1d708af4cf47b453dcf7",
            "e144d726b3acfaa3e44228e80efcd344",
        ),
        test=idx_pair(
            "t10k-images-idx3-ubyte",
            "t10k-labels-idx1-ubyte",
            None,
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
        train=idx_pair(
            "qmnist-train-images-idx3-ubyte",
            "qmnist-train-labels-idx2-int",
            None,
            None,
            "ed72d4157d28c017586c42bc6afe6370",
            "0058f8dd561b90ffdd0f734c6a30e5e4",
        ),
        test=idx_pair(
            "qmnist-test-images-idx3-ubyte",
            "qmnist-test-labels-idx2-int",
            None,
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
    CatalogEntry(
        name="cifar-10",
        folder="CIFAR10",
        classes=_CIFAR_10,
        train=tuple(PublishedFile(f"data_batch_{n}.bin", packed=False) for n in range(1, 6)),
        test=(PublishedFile("test_batch.bin", packed=False),),
        licence="none stated, Alex Krizhevsky",
        source="cifar",
        mirrors=(_CIFAR_MIRROR,),
        archives=(
            Archive(
                "cifar-10-binary.tar.gz",
                "c32a1d4ab5d03f1284b67883e8d87530",
                "cifar-10-batches-bin/",
            ),
            Archive(
                "cifar-10-python.tar.gz",
                "c58f30108f718f92721af3b95e74349a",
                "cifar-10-batches-py/",
            ),
        ),
        characters=False,
    ),
    CatalogEntry(
        name="cifar-100",
        folder="CIFAR100",
        classes=_CIFAR_100,
        train=(PublishedFile("train.bin", packed=False),),
        test=(PublishedFile("test.bin", packed=False),),
        licence="none stated, Alex Krizhevsky",
        source="cifar",
        mirrors=(_CIFAR_MIRROR,),
        archives=(
            Archive(
                "cifar-100-binary.tar.gz", "03b5dce01913d631647c71ecec9e9cb8", "cifar-100-binary/"
            ),
            Archive(
                "cifar-100-python.tar.gz", "eb9058c3a382ffc7106e4002c42a8d85", "cifar-100-python/"
            ),
        ),
        characters=False,
    ),
    CatalogEntry(
        name="svhn",
        folder="SVHN",
        classes=_DIGITS,
        train=(
            PublishedFile("train_32x32.mat", md5="e26dedcc434d2e4c54c9b2d4a06d8373", packed=False),
        ),
        test=(
            PublishedFile("test_32x32.mat", md5="eb5a983be6a315427106f1b164d9cef3", packed=False),
        ),
        licence="non-commercial use, Stanford",
        source="svhn",
        mirrors=("http://ufldl.stanford.edu/housenumbers/",),
        characters=False,
    ),
)

CATALOG: dict[str, CatalogEntry] = {entry.name: entry for entry in _ENTRIES}
