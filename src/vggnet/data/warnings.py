"""What a person should know of their images before believing a figure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

_LOPSIDED = 10
"""Times as many images in the largest class as in the smallest, from where on it is said."""

_MOST = 20
"""Files named in one sentence."""


def list_bad(bad: Mapping[str, str], count: int, folder: str) -> str:
    """Say which of `count` files in a folder cannot be read, and why."""
    named = [f"{name} ({reason})" for name, reason in list(bad.items())[:_MOST]]
    if len(bad) > _MOST:
        named.append(f"and {len(bad) - _MOST:,} more")
    return f"{len(bad):,} of {count:,} files in {folder} cannot be read: {', '.join(named)}"


def collect_warnings(
    train: npt.NDArray[np.uint8],
    test: npt.NDArray[np.uint8],
    train_labels: npt.NDArray[np.integer],
    test_labels: npt.NDArray[np.integer],
    classes: Sequence[str],
) -> Iterator[str]:
    """Say what flatters or spoils the figures that will follow.

    Args:
        train, test: Images, (N, C, H, W).
        train_labels, test_labels: Their classes, (N,).
        classes: Names of the classes.
    """
    counts = np.bincount(train_labels, minlength=len(classes))
    largest, smallest = int(counts.argmax()), int(counts.argmin())
    if counts[largest] >= _LOPSIDED * counts[smallest]:
        yield (
            f"the classes are imbalanced: {counts[largest]:,} training images of "
            f"{classes[largest]} and {counts[smallest]:,} of {classes[smallest]}; look at the "
            "recall of each class, not at the accuracy alone"
        )
    tested = np.bincount(test_labels, minlength=len(classes))
    if missing := [name for name, count in zip(classes, tested, strict=True) if not count]:
        yield f"there is no test image of {', '.join(missing)}"
    known = {hash(image.tobytes()) for image in train}
    twice = sum(hash(image.tobytes()) in known for image in test)
    if twice:
        yield (
            f"{twice:,} of {len(test):,} test images are in the training set too; "
            "the test accuracy will flatter"
        )
