"""Tables of pixels in text files: MNIST as CSV, in Kaggle's layout and the usual ones.

A row is an image: a label, if there is one, and the pixels row by row, for colour in three
planes.
"""

from __future__ import annotations

import gzip
import io
import itertools
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import numpy as np

from vggnet.data.collection import Collection, Request, list_names
from vggnet.data.files import File, Tree
from vggnet.data.memory import check_memory
from vggnet.data.sources.arrays import (
    ArraySplit,
    Numbers,
    assign_splits,
    collect,
    row_shape,
    scale_pixels,
    shape_images,
    turn_emnist,
)
from vggnet.errors import DataError

_SUFFIXES = (".csv", ".csv.gz", ".tsv", ".tsv.gz")

_LABELS = {"label", "labels", "class", "target", "y"}
_IDS = {"", "id", "imageid", "image_id", "index", "unnamed: 0"}
"""What headers call the column of labels, and one that only numbers the rows."""

_FEWEST = 17
"""Columns of the smallest table: a label and 4×4 pixels."""

_CHUNK = 2_048
"""Rows that are parsed at a time."""

_LONGEST = 1 << 24
"""Characters of the longest row that is read: a colour image of 1,024 pixels a side."""

_LONGEST_LABEL = 255
"""Characters; a folder's name, which is a label too, has no more."""


@dataclass(frozen=True)
class _Layout:
    """What the first row says of the columns."""

    delimiter: str
    columns: int
    header: bool
    label: int | None
    """The column of labels."""
    extra: tuple[int, ...]
    """Columns that are neither pixels nor labels."""
    warnings: tuple[str, ...] = ()


def recognize(tree: Tree) -> str | None:
    """Describe the tables of pixels in a tree; None if there are none."""
    names = [file.base for file in _find_tables(tree)]
    return f"a table of pixels ({list_names(names)})" if names else None


def load(tree: Tree, request: Request) -> Collection:
    """Load a table, or one for each split.

    Raises:
        DataError: A table is damaged, or names do not tell which split it is.
    """
    tables = _find_tables(tree)
    if not tables:  # there was one when the path was recognized
        names = list_names([file.path for file in tree.files if _is_named_so(file)])
        raise DataError(f"{names} changed while it was read, and is no longer a table of pixels")
    files = assign_splits(tables, tree)
    splits = {split: read_table(file) for split, file in files.items()}
    unlabelled = [split for split, found in splits.items() if found.labels is None]
    warnings = []
    for split in unlabelled if len(unlabelled) < len(splits) else ():
        warnings.append(f"{files[split].path} has no labels and is left out")
        del splits[split]
    return collect(splits, str(tree.path), request, warnings)


def read_rows(tree: Tree) -> ArraySplit:
    """Return the images of a single table."""
    return read_table(tree.files[0])


def read_table(file: File) -> ArraySplit:
    """Read one table.

    Whole numbers 0 to 255 are read in one pass. A table with fractions is read again as such.

    Raises:
        DataError: It is damaged, or not a table of square images; the message has the row.
    """
    try:
        return _read(file, np.uint8)
    except _FractionError:
        return _read(file, np.float32)


class _FractionError(Exception):
    """The table has a value that is no whole number."""


def _read(file: File, kind: type[np.generic]) -> ArraySplit:
    labels: list[str] = []
    parts: list[Numbers] = []
    size = 0
    with _open_text(file) as text:
        lines = _read_lines(text, file.path)
        first = next(lines, None)
        if first is None:
            raise DataError(f"{file.path} is empty")
        layout = _find_layout(first[1], file)
        if not layout.header:
            lines = itertools.chain([first], lines)
        while chunk := list(itertools.islice(lines, _CHUNK)):
            rows = [_take_label(line, layout, labels, number, file) for number, line in chunk]
            numbers = [number for number, _ in chunk]
            parts.append(_parse(rows, numbers, layout.delimiter, kind, file))
            size += parts[-1].nbytes
            check_memory(size, file.path)
    if not parts:
        raise DataError(f"{file.path} has a header and no rows")
    values = parts[0] if len(parts) == 1 else np.concatenate(parts)
    if values.dtype != np.uint8 and (values % 1 == 0).all() and values.max() > 1:
        values = values.astype(np.uint8)  # written as 0.0 and 255.0
    images = shape_images(scale_pixels(values, file.path), file.path)
    found = None if layout.label is None else _as_labels(labels, file)
    return turn_emnist(ArraySplit(images, found, layout.warnings), file)


def _find_tables(tree: Tree) -> list[File]:
    """Return the files that are tables of pixels, as far as the number of columns tells."""
    return [file for file in tree.files if _is_named_so(file) and _count_columns(file) >= _FEWEST]


def _is_named_so(file: File) -> bool:
    return file.base.lower().endswith(_SUFFIXES)


def _count_columns(file: File) -> int:
    try:
        with _open_text(file) as text:
            line = text.readline(_LONGEST)
    except DataError:
        return 0
    return line.count(_find_delimiter(line)) + 1


@contextmanager
def _open_text(file: File) -> Iterator[io.TextIOWrapper]:
    """Open a text file, gzipped or not (decided by content).

    Raises:
        DataError: It cannot be read, then or later.
    """
    try:
        with cast("io.BufferedReader", file.open()) as opened:
            packed = opened.peek(2)[:2] == b"\x1f\x8b"
            content = gzip.GzipFile(fileobj=opened) if packed else opened
            yield io.TextIOWrapper(content, "utf-8-sig", "replace")
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{file.path} is damaged ({error})") from None
    except OSError as error:
        raise DataError(f"cannot read {file.path}: {error.strerror or error}") from None


def _read_lines(text: io.TextIOWrapper, path: str) -> Iterator[tuple[int, str]]:
    """Yield the rows that are not empty, with their numbers from 1."""
    for number in itertools.count(1):
        line = text.readline(_LONGEST)
        if not line:
            return
        if len(line) >= _LONGEST:
            raise DataError(f"{path}, row {number:,}: longer than {_LONGEST:,} characters")
        if line := line.strip("\r\n"):
            yield number, line


def _find_delimiter(line: str) -> str:
    return max(",;\t", key=line.count)


def _split_row(line: str, delimiter: str) -> list[str]:
    return [cell.strip().strip("\"'") for cell in line.split(delimiter)]


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _find_layout(line: str, file: File) -> _Layout:
    """Tell labels from pixels by the first row.

    Raises:
        DataError: The number of columns fits no square image, or fits two.
    """
    delimiter = _find_delimiter(line)
    cells = _split_row(line, delimiter)
    count = len(cells)
    # A header has names; a row of data has at most one, its label.
    header = sum(not _is_number(cell) for cell in cells) > 1
    named = [at for at, cell in enumerate(cells) if header and cell.lower() in _LABELS]
    extra = [at for at, cell in enumerate(cells) if header and cell.lower() in _IDS]
    label = named[0] if named else None
    warnings = []
    if label is None and not extra and row_shape(count) is None and row_shape(count - 1):
        label = 0
        warnings.append(
            f"the first column of {file.path} is taken for the labels; if another one is, give the "
            "table a header that calls it label"
        )
    elif not header and row_shape(count) and row_shape(count - 1):
        raise DataError(
            f"{file.path} can have {count} pixels in a row, or a label and {count - 1}; give it a "
            "header that calls the column of labels label"
        )
    pixels = count - len(extra) - (label is not None)
    shape = row_shape(pixels)
    if len(named) > 1 or shape is None:
        raise DataError(
            f"{file.path} has {count:,} columns; a row must be a square image in grey or colour, "
            "for example 784 pixels, and may have one column called label"
        )
    if shape[0] == 3:
        warnings.append(
            f"{file.path} has {pixels:,} pixels in a row, which are taken for three planes of "
            f"{shape[1]}×{shape[2]}, red first"
        )
    return _Layout(delimiter, count, header, label, tuple(extra), tuple(warnings))


def _take_label(line: str, layout: _Layout, labels: list[str], number: int, file: File) -> str:
    """Put a row's label into the list, and return the row with the pixels only."""
    count = line.count(layout.delimiter) + 1
    if count != layout.columns:
        raise DataError(
            f"{file.path}, row {number:,}: {count:,} columns, not {layout.columns:,} as in the "
            "first row"
        )
    special = [*layout.extra, *([] if layout.label is None else [layout.label])]
    for column in sorted(special, reverse=True):
        line, cell = _cut(line, layout.delimiter, column)
        if column == layout.label:
            labels.append(cell.strip().strip("\"'"))
    return line


def _cut(line: str, delimiter: str, column: int) -> tuple[str, str]:
    """Return a row without one column, and that column."""
    if column == line.count(delimiter):
        rest, _, cell = line.rpartition(delimiter)
        return rest, cell
    *before, cell, after = line.split(delimiter, column + 1)
    return delimiter.join([*before, after]), cell


def _parse(
    rows: Sequence[str], numbers: Sequence[int], delimiter: str, kind: type[np.generic], file: File
) -> Numbers:
    """Turn rows of text into numbers.

    Raises:
        _FractionError: `kind` is for whole numbers, and there are others.
        DataError: A value is no pixel.
    """
    try:
        values = np.loadtxt(rows, kind, comments=None, delimiter=delimiter, quotechar='"', ndmin=2)
    except ValueError:
        if kind is np.uint8:
            raise _FractionError from None
        for number, row in zip(numbers, rows, strict=True):
            for cell in _split_row(row, delimiter):
                if not _is_number(cell):
                    raise DataError(
                        f"{file.path}, row {number:,}: {cell[:40]!r} is not a number"
                    ) from None
        raise DataError(
            f"{file.path}, row {numbers[0]:,} or later: not a table of numbers"
        ) from None
    wrong = np.argwhere(~((values >= 0) & (values <= 255)))
    if len(wrong):
        row, column = wrong[0]
        raise DataError(
            f"{file.path}, row {numbers[row]:,}: {values[row, column]:g} is no pixel; pixels are 0 "
            "to 255, or fractions from 0 to 1"
        )
    return values


def _as_labels(labels: Sequence[str], file: File) -> Numbers:
    """Return labels as numbers if all are numbers, otherwise as names.

    Raises:
        DataError: One is empty, or too long for a name.
    """
    for number, label in enumerate(labels, 1):
        if not 0 < len(label) <= _LONGEST_LABEL:
            raise DataError(
                f"{file.path}, image {number:,}: the label has {len(label):,} characters"
            )
    names = np.array(labels)
    try:
        return names.astype(np.float64)
    except ValueError:
        return names
