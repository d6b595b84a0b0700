"""Image files in a folder or a zip: a folder for each class, or a table of labels beside them.

    pets/cat/1.jpg                    classes
    pets/train/cat/1.jpg              splits, and classes in each
    pets/1.jpg, pets/labels.csv       a table with the columns file_name and label

A single folder around any of these is entered. Where all folders hold folders of the same names,
either can be the classes, and `class_folders` must say which.
"""

from __future__ import annotations

import csv
import errno
import io
import itertools
import posixpath
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import IO

import numpy as np

from vggnet.data.collection import (
    SPLITS,
    TRAIN,
    Collection,
    Request,
    find_split,
    list_names,
    natural_key,
)
from vggnet.data.decode import SUFFIXES
from vggnet.data.encoded import LabelledFiles, collect_files
from vggnet.data.files import File, Tree, check_name, os_errors
from vggnet.errors import DataError

_NOT_IMAGES = (
    ".txt", ".csv", ".tsv", ".json", ".jsonl", ".xml", ".yaml", ".yml", ".md", ".html", ".pdf",
    ".py", ".ipynb", ".log", ".ini", ".db", ".mat", ".npy", ".npz", ".pth", ".pt", ".parquet",
    ".zip", ".gz", ".tar", ".doc", ".docx", ".xlsx",
)  # fmt: skip
"""Suffixes of files that are left out without a look at their content."""

_TABLES = ("metadata.csv", "labels.csv")
_FILE_COLUMNS = ("file_name", "filename", "file", "image", "path")
_LABEL_COLUMNS = ("label", "class")


def recognize(tree: Tree) -> str | None:
    """Describe a folder or a zip with files that can be images; None without any."""
    return "image files" if not tree.is_file and find_candidates(tree)[0] else None


def has_folders_of_images(tree: Tree) -> bool:
    """Return whether image files, by their suffixes, are in folders below that of all files."""
    top = posixpath.commonpath([file.folder for file in tree.files])
    return any(file.folder != top and file.base.lower().endswith(SUFFIXES) for file in tree.files)


def load(tree: Tree, request: Request) -> Collection:
    """Load all images with their labels and splits; see `list_images`.

    Raises:
        DataError: The structure is not clear, a file cannot be read, or there is no image.
    """
    return collect_files(list_images(tree, request), tree.path, request)


def find_candidates(tree: Tree) -> tuple[list[File], list[str]]:
    """Return the files that can be images, and the names of the others."""
    images = [file for file in tree.files if not file.base.lower().endswith(_NOT_IMAGES)]
    others = [file.name for file in tree.files if file.base.lower().endswith(_NOT_IMAGES)]
    return images, [*others, *tree.hidden]


def list_images(tree: Tree, request: Request) -> LabelledFiles:
    """Find the label and the split of every image, without opening any.

    Raises:
        DataError: It is not clear which folders are the classes, a split has no classes, or a
            class's name is not valid UTF-8.
    """
    images, left_out = find_candidates(tree)
    tables = {file.name: file for file in tree.files if file.base in _TABLES}
    top = _Level(tree, tables, images).enter()
    levels = [(split, level.enter()) for split, level in _find_splits(top).items()]
    levels, warnings = _drop_unlabelled(levels)
    if levels:
        used = {file.name for _, level in levels for file in level.all}
        if unused := [file.name for file in images if file.name not in used]:
            warnings.append(f"{len(unused):,} files in no split are left out: {list_names(unused)}")
    else:
        levels = [(TRAIN, level) for level in _find_classes(top, request.class_folders)]
    found: list[tuple[int, str, File]] = []
    for split, level in levels:
        labelled, unlabelled = level.label()
        found += [(split, name, file) for name, file in labelled]
        left_out = [name for name in left_out if level.table is None or name != level.table.name]
        if unlabelled:
            warnings.append(
                f"{len(unlabelled):,} files in {level.path} have no label and are left out: "
                f"{list_names(unlabelled)}"
            )
        if empty := level.empty:
            warnings.append(f"{list_names(empty)} in {tree.path} has no images and is left out")
    classes = _sort_classes({name for _, name, _ in found}, request.class_order)
    numbers = {name: number for number, name in enumerate(classes)}
    found.sort(key=lambda row: (numbers[row[1]], row[2].name))
    return LabelledFiles(
        files=[file for _, _, file in found],
        labels=np.array([numbers[name] for _, name, _ in found], np.int64),
        classes=classes,
        splits=np.array([split for split, _, _ in found], np.int64),
        left_out=left_out,
        warnings=warnings,
    )


def _sort_classes(names: set[str], first: Sequence[str]) -> list[str]:
    """Return the names in natural order, after those of `first`.

    Raises:
        DataError: A name is not valid UTF-8.
    """
    places = {name: place for place, name in enumerate(first)}
    ordered = sorted(names, key=lambda name: (places.get(name, len(places)), natural_key(name)))
    for name in ordered:
        check_name(name)
    return ordered


class _Level:
    """The images below one folder of a tree, and how they are sorted into its folders."""

    def __init__(
        self, tree: Tree, tables: Mapping[str, File], images: list[File], prefix: str = ""
    ) -> None:
        self.tree, self.all, self.prefix = tree, images, prefix
        self._tables = tables
        self.table = next(
            (tables[prefix + name] for name in _TABLES if prefix + name in tables), None
        )
        """The table of labels, if there is one."""
        self.folders: dict[str, list[File]] = defaultdict(list)
        self.images: list[File] = []
        """Those in no folder."""
        for file in images:
            head, inside, _ = file.name[len(prefix) :].partition("/")
            (self.folders[head] if inside else self.images).append(file)

    @property
    def path(self) -> str:
        """What messages call it."""
        return f"{self.tree.path}/{self.prefix}".rstrip("/")

    @property
    def empty(self) -> list[str]:
        """Folders that have no images."""
        here = [
            name[len(self.prefix) :] for name in self.tree.folders if name.startswith(self.prefix)
        ]
        return [name for name in here if "/" not in name and name not in self.folders]

    def inner(self, name: str) -> _Level:
        """Return one of its folders."""
        return _Level(self.tree, self._tables, self.folders[name], f"{self.prefix}{name}/")

    def enter(self) -> _Level:
        """Return the level with the classes or splits, below folders that only wrap it."""
        level = self
        while len(level.folders) == 1 and not level.images and not level.table:
            inner = level.inner(*level.folders)
            if not inner.folders and not inner.table:
                break
            level = inner
        return level

    def label(self) -> tuple[list[tuple[str, File]], list[str]]:
        """Return the images with their classes, and the names of those without.

        Raises:
            DataError: There are neither class folders nor a table.
        """
        if self.table and len(self.folders) < 2:
            return _read_table(self.table, self.all)
        if self.folders:
            labelled = [(name, file) for name, files in self.folders.items() for file in files]
            return labelled, [file.name for file in self.images]
        raise DataError(
            f"{self.path} has images, but no labels: make a folder for each class, or a labels.csv "
            "with the columns file_name and label"
        )


def _find_splits(top: _Level) -> dict[int, _Level]:
    """Return the folders that are splits by their names; empty if the folders are classes.

    They are splits if all are called so, or if one is called train and another test or
    validation.

    Raises:
        DataError: Two folders are called the same split.
    """
    named = [(split, name) for name in top.folders if (split := find_split(name)) is not None]
    splits = {split for split, _ in named}
    if len(splits) < 2 or not (TRAIN in splits or len(named) == len(top.folders)):
        return {}
    if len(named) > len(splits):
        names = list_names(sorted(name for _, name in named))
        raise DataError(f"{top.path} has several folders for one split: {names}; keep one of each")
    return {split: top.inner(name) for split, name in sorted(named)}


def _drop_unlabelled(
    levels: Sequence[tuple[int, _Level]],
) -> tuple[list[tuple[int, _Level]], list[str]]:
    """Return the splits without those that have no labels, except the training set; say so."""
    kept, warnings = [], []
    for split, level in levels:
        if split == TRAIN or level.folders or level.table:
            kept.append((split, level))
        else:
            warnings.append(
                f"{level.path} has no class folders, so it is not used as the {SPLITS[split]} set"
            )
    return kept, warnings


def _find_classes(top: _Level, class_folders: str | None) -> list[_Level]:
    """Return the levels whose folders are the classes.

    That is `top`, unless its folders hold folders of the same names, as unnamed splits do, and
    so do classes that are sorted further. Then `class_folders` decides.

    Raises:
        DataError: It says nothing, and two folders share at least two names.
    """
    below = {name: top.inner(name).enter() for name in top.folders}
    alike = _find_alike({name: sorted(level.folders) for name, level in below.items()})
    if not alike or class_folders == "outer":
        return [top]
    if class_folders == "inner":
        return list(below.values())
    one, other = alike
    common = sorted(below[one].folders.keys() & below[other].folders, key=natural_key)
    raise DataError(
        f"{one} and {other} in {top.path} hold folders of the same names ({list_names(common)}), "
        "so it is not clear which are the classes: if the outer folders are splits, call them "
        f"train and test, or train on one of them with --dataset {top.path}/{one}; if they are "
        "the classes, pass --class-folders outer; if the inner folders are, --class-folders inner"
    )


def _find_alike(outer: Mapping[str, Sequence[str]]) -> tuple[str, str] | None:
    """Return two folders that hold at least two folders of the same names, if there are any.

    Pairs are formed of the outer or of the inner names, whichever are fewer: 10,000 classes that
    each hold a folder `images` have one inner name, and 50 million pairs.

    Args:
        outer: The folders, and the sorted names of those in them.
    """
    counts = Counter(itertools.chain.from_iterable(outer.values()))
    shared = {name: [one for one in held if counts[one] > 1] for name, held in outer.items()}
    owners = defaultdict(list)
    for name, held in shared.items():
        for one in held:
            owners[one].append(name)
    if len(outer) <= len(owners):
        found = _find_repeated_pair(owners)
        return found and found[0]
    found = _find_repeated_pair(shared)
    return found and found[1]


def _find_repeated_pair(
    groups: Mapping[str, Sequence[str]],
) -> tuple[tuple[str, str], tuple[str, str]] | None:
    """Return two members that are together in two groups, and the groups."""
    first: dict[tuple[str, str], str] = {}
    for group, members in groups.items():
        for pair in itertools.combinations(members, 2):
            if pair in first:
                return pair, (first[pair], group)
            first[pair] = group
    return None


def _read_table(table: File, images: list[File]) -> tuple[list[tuple[str, File]], list[str]]:
    """Label images by a table.

    Raises:
        DataError: It is damaged, or does not have the two columns.
    """
    with os_errors():
        text = table.read().decode("utf-8-sig", "replace")
    try:
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
    except csv.Error as error:
        raise DataError(f"{table.path} is not a CSV table: {error}") from None
    columns = {str(name).strip().lower(): name for name in (rows[0] if rows else ())}
    file_column = next((columns[name] for name in _FILE_COLUMNS if name in columns), None)
    label_column = next((columns[name] for name in _LABEL_COLUMNS if name in columns), None)
    if file_column is None or label_column is None:
        raise DataError(
            f"{table.path} has the columns {list_names(list(columns)) or '(none)'}; it needs "
            "file_name and label"
        )
    prefix = f"{table.folder}/" if table.folder else ""
    by_name = {file.name.removeprefix(prefix): file for file in images}
    labelled = []
    for row in rows:
        name, label = (str(row[column] or "").strip() for column in (file_column, label_column))
        name = name.replace("\\", "/").removeprefix("./")
        if not label:
            raise DataError(f"{table.path}: {name} has no label")
        labelled.append((label, by_name.pop(name) if name in by_name else _missing(name)))
    return labelled, [file.name for file in by_name.values()]


def _missing(name: str) -> File:
    """Return a file that a table lists and that is not there."""

    def refuse() -> IO[bytes]:
        raise FileNotFoundError(errno.ENOENT, "not there, or listed twice", name)

    return File(name, name, 0, 0, refuse)
