"""Image files to answers, batch by batch."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vggnet.data.catalog import CATALOG
from vggnet.data.decode import SUFFIXES, decode_image, load_image
from vggnet.data.listing import refusals, visible_files
from vggnet.data.matching import Learnt
from vggnet.errors import ImageError
from vggnet.inference.predict import BATCH_SIZE, Classifier
from vggnet.inference.reading import Reading, decoding_side, see

Pixels = npt.NDArray[np.uint8]
_DIGIT_SHAPE = (1, 28, 28)
"""MNIST's channels, height and width, which the page's drawings have as well."""


@dataclass(frozen=True)
class Guess:
    """What one image, or one digit of a row, shows."""

    seen: Pixels
    """What the network saw, (C, H, W)."""
    top: tuple[tuple[str, float], ...]
    """Classes and probabilities, likeliest first."""

    @property
    def label(self) -> str:
        """The likeliest class."""
        return self.top[0][0]

    @property
    def probability(self) -> float:
        """Its probability."""
        return self.top[0][1]


@dataclass(frozen=True)
class Answer:
    """What was read in one file."""

    path: str
    guesses: tuple[Guess, ...] = ()
    """One; of a row one a digit; none where nothing is drawn."""
    problem: str | None = None
    """Why the file could not be read."""

    @property
    def number(self) -> str:
        """A row's digits, from left to right."""
        return "".join(guess.label for guess in self.guesses)

    @property
    def least_sure(self) -> int:
        """Which of a row's digits has the lowest probability, from 0 on."""
        return min(range(len(self.guesses)), key=lambda at: self.guesses[at].probability)


def choose_reading(learnt: Learnt) -> Reading:
    """Return how images are prepared for a network, by what it was trained on.

    They are drawn again for one that knows characters as MNIST has them: of a catalog's dataset, or
    of one's own in MNIST's form, named by single letters and digits. Any other folder's images
    were fitted for training, and so are these.
    """
    if entry := CATALOG.get(learnt.dataset or ""):
        drawn = entry.characters
    else:
        named = all(len(name) == 1 and name.isalnum() for name in learnt.classes)
        drawn = named and learnt.image_shape == _DIGIT_SHAPE
    return Reading.DRAWN if drawn else Reading.FITTED


@refusals()
def find_images(paths: Iterable[Path]) -> list[Path]:
    """Put the images in a folder, and in those within it, in the place of the folder.

    Hidden files, and what else systems put into folders, are left out as in training.

    Raises:
        ImageError: A folder holds no image.
        DataError: A folder may not be read.
    """
    found: list[Path] = []
    for path in paths:
        if not _is_folder(path):
            found.append(path)
            continue
        inside = sorted(one for one in visible_files(path) if one.suffix.lower() in SUFFIXES)
        if not inside:
            raise ImageError(f"there is no PNG, JPEG, WebP or BMP image in {path}")
        found += inside
    return found


def read_images(
    classifier: Classifier, paths: Iterable[Path], reading: Reading, top: int
) -> Iterator[Answer]:
    """Answer image files in their order, in batches.

    Args:
        classifier: The network.
        paths: Files; "-" is standard input.
        reading: How to prepare them.
        top: Classes to name for each.
    """
    rest = iter(paths)
    while batch := list(itertools.islice(rest, BATCH_SIZE)):
        prepared = [_see_file(classifier, path, reading) for path in batch]
        seen = [one for found in prepared if not isinstance(found, ImageError) for one in found]
        guesses = _guess(classifier, seen, top)
        for path, found in zip(batch, prepared, strict=True):
            if isinstance(found, ImageError):
                yield Answer(str(path), problem=str(found))
            else:
                yield Answer(str(path), tuple(itertools.islice(guesses, len(found))))


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # named with the images that cannot be read, when it is opened
        return False


def _see_file(classifier: Classifier, path: Path, reading: Reading) -> list[Pixels] | ImageError:
    try:
        shape = classifier.card.image_shape
        return see(_load(path, decoding_side(reading, shape)), reading, shape)
    except ImageError as error:
        return error


def _load(path: Path, side: int | None) -> Pixels:
    if str(path) == "-":
        return decode_image(sys.stdin.buffer.read(), side=side)
    return load_image(path, side=side)


def _guess(classifier: Classifier, seen: list[Pixels], top: int) -> Iterator[Guess]:
    if not seen:
        return
    probabilities = classifier.predict(np.stack(seen)).probabilities
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]
    for image, shares, order in zip(seen, probabilities, best, strict=True):
        yield Guess(image, tuple((classifier.classes[at], float(shares[at])) for at in order))
