"""Files of images to predictions, batch by batch."""

from __future__ import annotations

import io
import itertools
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from vggnet.data.catalog import CATALOG
from vggnet.data.decode import (
    SUFFIXES,
    Header,
    find_bit_depth,
    load_image,
    read_header,
)
from vggnet.data.encoded import describe_left_out
from vggnet.data.files import File, Tree, file_mode, is_file, is_folder, open_regular
from vggnet.data.image_cost import UnknownFormatError
from vggnet.data.matching import TrainedOn
from vggnet.data.memory import MemoryBudget
from vggnet.data.sources import find_source, open_tree
from vggnet.data.sources.archive import is_archive
from vggnet.data.sources.arrays import ArraySplit, fit_images
from vggnet.data.sources.images import find_candidates
from vggnet.errors import DataError, ImageError
from vggnet.inference.predictions import Prediction
from vggnet.inference.reading import Reading, decoding_side, see

if TYPE_CHECKING:
    from vggnet.inference.predict import Classifier

Pixels = npt.NDArray[np.uint8]

_DIGIT_SHAPE = (1, 28, 28)
"""Channels, height and width of MNIST's images, and of drawings on the page."""

_CHUNK = 128
"""Images that are prepared before they are classified."""

_MOST_STDIN = 1 << 28
"""Bytes of an image that are read from standard input."""


@dataclass(frozen=True)
class Item:
    """One image to classify."""

    path: str
    """Its file; of a data file with the number of the row, from 1, as in `test.csv:1`."""
    content: File | Pixels | str
    """An encoded image, pixels as a data file holds them (C, H, W), or why there is neither."""


@dataclass(frozen=True)
class Inputs:
    """All images that were named, and what to know about them."""

    items: Sequence[Item]
    deep: Sequence[File]
    """Grey images of more than 8 bits; see `find_bit_depth`."""
    warnings: Sequence[str]


@dataclass(frozen=True)
class FileResult:
    """What was found in one image."""

    path: str
    predictions: tuple[Prediction, ...] = ()
    """One; one for each digit of a row; none if nothing is drawn."""
    problem: str | None = None
    """Why the image could not be read."""

    @property
    def number(self) -> str:
        """The digits of a row, from left to right."""
        return "".join(one.label or "" for one in self.predictions)

    @property
    def least_confident(self) -> int:
        """The position of a row's digit with the lowest probability, from 0."""
        return min(range(len(self.predictions)), key=lambda at: self.predictions[at].probability)

    @property
    def least_typical(self) -> Prediction:
        """The digit of a row that is least like the training images, if that is known."""
        return min(self.predictions, key=lambda one: one.typicality or 0.0)


def choose_reading(trained_on: TrainedOn) -> Reading:
    """Return how images are prepared for a network, by what it was trained on.

    Characters are redrawn in MNIST's style for networks that were trained on a catalog's
    characters, or on 28×28 grey images whose classes are single letters or digits. All other
    images are fitted, as they were for training.
    """
    if entry := CATALOG.get(trained_on.dataset or ""):
        drawn = entry.characters
    else:
        named = all(len(name) == 1 and name.isalnum() for name in trained_on.classes)
        drawn = named and trained_on.image_shape == _DIGIT_SHAPE
    return Reading.DRAWN if drawn else Reading.FITTED


def find_inputs(paths: Iterable[Path]) -> Inputs:
    """Find the images in files, folders, zip archives and data files.

    In folders and archives, images are told by their content as in training. A path that
    cannot be read is an item with a problem, so it costs no other prediction.

    Args:
        paths: What the user named; "-" is standard input.
    """
    items: list[Item] = []
    deep: list[File] = []
    warnings: list[str] = []
    for path in paths:
        try:
            found, notes = _find_in(path)
        except DataError as error:
            found, notes = [Item(str(path), str(error))], []
        warnings += notes
        for file in (item.content for item in found if isinstance(item.content, File)):
            header = _read_header(file)
            if isinstance(header, Header) and header.deep:
                deep.append(file)
        items += found
    return Inputs(items, deep, warnings)


def choose_bit_depth(inputs: Inputs, trained_on: TrainedOn) -> int | None:
    """Return the bits that count as the full range of 16-bit images.

    That is what the model was trained with, or what the largest value of all images needs.
    """
    if trained_on.bit_depth or not inputs.deep:
        return trained_on.bit_depth
    budget = MemoryBudget()
    depths = []
    for file in inputs.deep:
        try:
            depths.append(find_bit_depth(file, budget))
        except ImageError:  # reported when it is predicted
            continue
    return max(depths, default=None)


def predict_items(
    classifier: Classifier,
    items: Iterable[Item],
    reading: Reading,
    top: int,
    bit_depth: int | None = None,
) -> Iterator[FileResult]:
    """Classify images in their order, in batches.

    Args:
        classifier: The network.
        items: As `find_inputs` returns them.
        reading: How to prepare encoded images; pixels of data files are used as they are.
        top: Number of classes to name for each.
        bit_depth: As `choose_bit_depth` returns it.
    """
    for batch in _batched(items):
        shape = classifier.card.image_shape
        prepared = [prepare_item(item, reading, shape, bit_depth) for item in batch]
        seen = [one for found in prepared if not isinstance(found, str) for one in found]
        predictions = _classify(classifier, seen, top)
        for item, found in zip(batch, prepared, strict=True):
            if isinstance(found, str):
                yield FileResult(item.path, problem=found)
            else:
                yield FileResult(item.path, tuple(itertools.islice(predictions, len(found))))


def _find_in(path: Path) -> tuple[list[Item], list[str]]:
    """Return the images of one path that the user named, and what to know about them.

    Raises:
        DataError: There is none, or a folder or a data file cannot be read.
    """
    if str(path) == "-":
        return [_read_stdin()], []
    if is_folder(path) or (is_archive(path) and file_mode(path) is not None):
        return _find_in_tree(open_tree(path))
    if not is_file(path):  # reported in its turn
        return [Item(str(path), File(path.name, str(path), 0, 0, lambda: open_regular(path)))], []
    tree = open_tree(path)
    source = find_source(tree)
    if source is None or source.read_rows is None:
        return [Item(str(path), tree.files[0])], []
    rows = source.read_rows(tree)
    if isinstance(rows, ArraySplit):
        return [Item(f"{path}:{row}", image) for row, image in enumerate(rows.images, 1)], list(
            rows.warnings
        )
    return [Item(file.path, file) for file in rows], []


def _find_in_tree(tree: Tree) -> tuple[list[Item], list[str]]:
    """Return the images of a folder or an archive, by content."""
    candidates, left_out = find_candidates(tree)
    items = []
    for file in candidates:
        named_so = file.base.lower().endswith(SUFFIXES)
        if named_so or not isinstance(_read_header(file), UnknownFormatError):
            items.append(Item(file.path, file))
        else:
            left_out.append(file.name)
    warnings = describe_left_out(sorted(left_out), str(tree.path))
    if not items:
        raise DataError(f"there is no image in {tree.path}")
    return items, warnings


def _read_stdin() -> Item:
    content = sys.stdin.buffer.read(_MOST_STDIN + 1)
    if len(content) > _MOST_STDIN:
        return Item("-", f"more than {_MOST_STDIN:,} bytes")
    return Item("-", File("-", "-", len(content), 0, lambda: io.BytesIO(content)))


def _read_header(file: File) -> Header | ImageError:
    try:
        return read_header(file)
    except ImageError as error:
        return error


def prepare_item(
    item: Item, reading: Reading, shape: tuple[int, int, int], bit_depth: int | None
) -> list[Pixels] | str:
    """Return what a network sees of an item, as `see` does, or why that is nothing."""
    if isinstance(item.content, str):
        return item.content
    if not isinstance(item.content, File):
        return list(fit_images(item.content[np.newaxis], shape))
    try:
        side = decoding_side(reading, shape)
        return see(load_image(item.content, side=side, bit_depth=bit_depth), reading, shape)
    except ImageError as error:
        return str(error)


def _batched(items: Iterable[Item]) -> Iterator[list[Item]]:
    rest = iter(items)
    while batch := list(itertools.islice(rest, _CHUNK)):
        yield batch


def _classify(classifier: Classifier, seen: list[Pixels], top: int) -> Iterator[Prediction]:
    if not seen:
        return
    found = classifier.predict(np.stack(seen))
    best = np.argsort(-found.probabilities, axis=1, kind="stable")[:, :top]
    for number, (row, order) in enumerate(zip(found.probabilities, best, strict=True)):
        shares = tuple((classifier.classes[at], float(row[at])) for at in order)
        typical = None if found.typicality is None else float(found.typicality[number])
        yield Prediction(seen[number], shares, typical)
