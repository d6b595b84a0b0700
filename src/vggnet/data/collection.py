"""A user's own images and labels, from whatever source: one array, sorted by split."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from vggnet.config import DataConfig
from vggnet.data.dataset import Dataset, LabeledImages, is_imbalanced
from vggnet.errors import DataError

TRAIN, TEST, VALIDATION = range(3)
"""The splits, in the order in which a collection holds them."""

SPLITS = ("training", "test", "validation")
"""Their names, for messages."""

_SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), TRAIN),
    **dict.fromkeys(("test", "testing", "t10k"), TEST),
    **dict.fromkeys(("val", "valid", "validation"), VALIDATION),
}

_HELD_OUT = 6
"""One image in six of each class is for the test; MNIST has one in seven."""

_MOST_NAMED = 20
"""Names that one message lists."""


@dataclass(frozen=True)
class Request:
    """How images are wanted. Fields that `DataConfig` has too mean the same."""

    image_size: int | None = None
    channels: int | None = None
    """1 for grey, 3 for colour; None: grey if all images are."""
    skip_bad: bool = False
    common_classes: bool = False
    class_folders: str | None = None
    bit_depth: int | None = None
    cache: bool | None = None
    class_order: tuple[str, ...] = ()
    """Order of the classes, as a model has them; others follow in natural order."""

    @classmethod
    def of(cls, data: DataConfig) -> Request:
        """Return what a configuration asks for."""
        return cls(
            image_size=data.image_size,
            skip_bad=data.skip_bad,
            common_classes=data.common_classes,
            class_folders=data.class_folders,
            bit_depth=data.bit_depth,
            cache=data.cache,
        )


@dataclass(frozen=True)
class Rows:
    """Which of the images found are used, in which order, and with which labels."""

    order: npt.NDArray[np.int64]
    """Positions among the images found, sorted by split."""
    labels: npt.NDArray[np.int64]
    """As long as `order`."""
    classes: tuple[str, ...]
    train_size: int
    test_size: int
    own_test: bool
    """Whether the data say which images are for the test; otherwise a sixth is held out."""
    warnings: tuple[str, ...] = ()

    def keep(self, kept: npt.NDArray[np.bool_]) -> Rows:
        """Leave out the rows where `kept` is False."""
        test_end = self.train_size + self.test_size
        return Rows(
            self.order[kept],
            self.labels[kept],
            self.classes,
            int(kept[: self.train_size].sum()),
            int(kept[self.train_size : test_end].sum()),
            self.own_test,
            self.warnings,
        )


@dataclass(frozen=True)
class Digest:
    """What takes one pass over all pixels."""

    sha256: str
    """Of pixels, labels, class names and splits."""
    copies: int
    """Test images that are training images too."""


@dataclass(frozen=True)
class Collection:
    """Images in the order training, test, validation."""

    images: npt.NDArray[np.uint8]
    """(N, C, H, W)."""
    rows: Rows
    names: Sequence[str]
    """What messages call each image."""
    bit_depth: int | None = None
    """Bits that count as the full range of 16-bit images; None without such images."""
    warnings: tuple[str, ...] = ()
    known_digest: Digest | None = None
    """From the cache."""

    @cached_property
    def digest(self) -> Digest:
        """The cache's, or computed."""
        return self.known_digest or compute_digest(self.images, self.rows)

    def part(self, split: int, source: str) -> LabeledImages:
        """Return one split.

        Raises:
            DataError: It has no image.
        """
        ends = np.cumsum([0, self.rows.train_size, self.rows.test_size])
        rows = slice(ends[split], ends[split + 1] if split + 1 < len(ends) else None)
        return LabeledImages(
            self.images[rows], self.rows.labels[rows], len(self.rows.classes), source
        )


def compute_digest(images: npt.NDArray[np.uint8], rows: Rows) -> Digest:
    """Hash all pixels, and count the test images that are in the training set."""
    sizes = [rows.train_size]
    if rows.train_size + rows.test_size < len(rows.labels):
        sizes.append(rows.test_size)
    sha256 = hashlib.sha256(json.dumps([images.shape, *sizes, *rows.classes]).encode())
    known, copies = set(), 0
    for number, image in enumerate(images):
        content = image.tobytes()
        sha256.update(content)
        if number < rows.train_size:
            known.add(hash(content))
        elif number < rows.train_size + rows.test_size:
            copies += hash(content) in known
    sha256.update(rows.labels.astype("<i8").data)
    return Digest(sha256.hexdigest(), copies)


def arrange(
    labels: npt.NDArray[np.int64],
    classes: Sequence[str],
    splits: npt.NDArray[np.int64],
    source: str,
    common_classes: bool = False,
) -> Rows:
    """Sort images by split, and hold a test set out if the data have none.

    The held-out sixth of each class depends on the class's name and the number and order of
    its images only, so more images of one class do not change the split of another.

    Args:
        labels: (N,), positions in `classes`.
        classes: Names of the classes, in the order that the network will have.
        splits: (N,), TRAIN, TEST or VALIDATION.
        source: What messages call the data.
        common_classes: Leave out classes that are not in every split.
    """
    warnings = []
    splits = splits.copy()
    own_test = bool((splits == TEST).any())
    if not own_test and (splits == VALIDATION).any():
        splits[splits == VALIDATION] = TEST
        own_test = True
        warnings.append(f"{source} has no test split: its validation split is the test set")
    if not own_test:
        ends = np.cumsum(np.bincount(labels, minlength=len(classes)))
        by_class = np.split(np.argsort(labels, kind="stable"), ends)[:-1]
        for members, name in zip(by_class, classes, strict=True):
            splits[members[_choose_held_out(len(members), name)]] = TEST
    is_used, in_train, in_test = (
        np.bincount(labels[which], minlength=len(classes)) > 0
        for which in (slice(None), splits == TRAIN, splits == TEST)
    )
    if common_classes:
        is_used = in_train & in_test
    used = np.flatnonzero(is_used)
    if left := [classes[label] for label in np.flatnonzero(~is_used).tolist()]:
        warnings.append(f"classes that not every split has were left out: {list_names(left)}")
    chosen = np.flatnonzero(is_used[labels])
    order = chosen[np.argsort(splits[chosen], kind="stable")]
    return Rows(
        order=order,
        labels=np.searchsorted(used, labels[order]),
        classes=tuple(classes[label] for label in used.tolist()),
        train_size=int((splits[order] == TRAIN).sum()),
        test_size=int((splits[order] == TEST).sum()),
        own_test=own_test,
        warnings=tuple(warnings),
    )


def to_dataset(collection: Collection, name: str, source: str) -> Dataset:
    """Check that a collection can be trained on.

    Args:
        collection: The images.
        name: What to call the dataset.
        source: What messages call the data.

    Raises:
        DataError: There is one class only, or a split is empty.
    """
    rows = collection.rows
    if len(rows.classes) < 2:
        only = f", {rows.classes[0]}" if rows.classes else ""
        raise DataError(f"{source} has only one class{only}: there is nothing to distinguish")
    if not rows.train_size or not rows.test_size:
        part = "test" if rows.train_size else "train"
        raise DataError(
            f"{source} has too few images: none is left to {part} on; a class needs at least two"
        )
    has_validation = rows.train_size + rows.test_size < len(rows.labels)
    test = "test set" if rows.own_test else "held-out sixth"
    return Dataset(
        name=name,
        classes=rows.classes,
        train=collection.part(TRAIN, f"{source}, training set"),
        test=collection.part(TEST, f"{source}, {test}"),
        validation=(
            collection.part(VALIDATION, f"{source}, validation set") if has_validation else None
        ),
        sha256=collection.digest.sha256,
        bit_depth=collection.bit_depth,
        warnings=(*collection.warnings, *rows.warnings, *_judge(collection)),
    )


def find_split(name: str) -> int | None:
    """Return the split that a folder's or an array's name means; None if it means none."""
    return _SPLIT_NAMES.get(name.lower())


def find_split_in(name: str) -> int | None:
    """Return the split that is one word of a file's name, as in `mnist_train.csv`."""
    found = {_SPLIT_NAMES.get(word) for word in re.split(r"[^a-z0-9]+", name.lower())} - {None}
    return found.pop() if len(found) == 1 else None


def natural_key(name: str) -> tuple[list[tuple[int, str]], str]:
    """Return a key that sorts names with numbers as people do: 1, 2, 10."""
    parts = re.split(r"([0-9]+)", name)  # text and digits alternate
    parts[1::2] = [digits.lstrip("0") for digits in parts[1::2]]
    return [(len(part) if at % 2 else 0, part) for at, part in enumerate(parts)], name


def list_names(names: Sequence[str]) -> str:
    """Return names in one line: the first twenty, and how many more there are."""
    more = f" and {len(names) - _MOST_NAMED:,} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(names[:_MOST_NAMED]) + more


def _choose_held_out(count: int, class_name: str) -> npt.NDArray[np.int64]:
    """Return which images of a class are for the test; a single image is for training."""
    held_out = max(1, round(count / _HELD_OUT)) if count > 1 else 0
    seed = int.from_bytes(hashlib.sha256(class_name.encode()).digest()[:8], "big")
    return np.random.default_rng(seed).permutation(count)[:held_out]


def _judge(collection: Collection) -> Iterator[str]:
    """Yield what flatters or spoils the figures that will follow."""
    rows = collection.rows
    test_end = rows.train_size + rows.test_size
    trained = np.bincount(rows.labels[: rows.train_size], minlength=len(rows.classes))
    tested = np.bincount(rows.labels[rows.train_size : test_end], minlength=len(rows.classes))
    if is_imbalanced(trained):
        largest = int(trained.argmax())
        smallest = int(np.where(trained, trained, len(rows.labels)).argmin())
        yield (
            f"the classes are imbalanced: {trained[largest]:,} training images of "
            f"{rows.classes[largest]} and {trained[smallest]:,} of {rows.classes[smallest]}; look "
            "at the recall of each class, not only at the accuracy; --class-weights balanced gives "
            "each class the same weight"
        )
    for counts, what in ((trained, "training"), (tested, "test")):
        if missing := [rows.classes[at] for at in np.flatnonzero(counts == 0)]:
            yield (
                f"there is no {what} image of {list_names(missing)}; leave out classes that not "
                "every split has: --common-classes"
            )
    if copies := collection.digest.copies:
        yield (
            f"{copies:,} of {rows.test_size:,} test images are in the training set too; the test "
            "accuracy is too good"
        )
