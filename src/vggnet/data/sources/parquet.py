"""Parquet files of encoded images, as Hugging Face publishes them: `image.bytes` and `label`."""

from __future__ import annotations

import errno
import io
import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import IO, Any

import numpy as np

from vggnet.data.collection import (
    TRAIN,
    Collection,
    Request,
    find_split_in,
    list_names,
    natural_key,
)
from vggnet.data.encoded import LabelledFiles, collect_files
from vggnet.data.files import File, Tree
from vggnet.data.memory import check_memory
from vggnet.errors import DataError

_IMAGE_COLUMNS = ("image", "img")
_LABEL_COLUMNS = ("label", "fine_label", "labels")


def recognize(tree: Tree) -> str | None:
    """Describe the Parquet files in a tree; None if there are none."""
    names = [file.base for file in _find_files(tree)]
    return f"Parquet files ({list_names(names)})" if names else None


def load(tree: Tree, request: Request) -> Collection:
    """Load one file, or the shards of one dataset: `train-*` and `test-*`.

    Raises:
        DataError: A file is damaged or has no labels, or there are several datasets.
    """
    shards = [_Shard(file) for file in _find_files(tree)]
    if len(folders := {_dataset_folder(shard.file) for shard in shards}) > 1:
        raise DataError(
            f"{tree.path} holds {len(folders)} datasets of Parquet files "
            f"({list_names(sorted(folders))}): name the folder of one"
        )
    values: list[object] = []
    splits: list[int] = []
    warnings = []
    for shard in list(shards):
        found = shard.read_labels()
        if any(value is None for value in found):
            warnings.append(f"{shard.file.path} has images without labels and is left out")
            shards.remove(shard)
            continue
        values += found
        splits += [_find_split(shard.file) if len(shards) > 1 else TRAIN] * len(found)
    if not values:
        raise DataError(f"{tree.path} has no labels, so it can be predicted but not trained on")
    classes = shards[0].class_names()
    if classes is None:
        classes = sorted({str(value) for value in values}, key=natural_key)
        numbers: dict[object, int] = {name: number for number, name in enumerate(classes)}
        labels = [numbers[str(value)] for value in values]
    elif all(isinstance(value, int) and 0 <= value < len(classes) for value in values):
        labels = [int(str(value)) for value in values]
    else:
        raise DataError(f"{tree.path} has labels that are none of its {len(classes)} class names")
    listed = LabelledFiles(
        files=[file for shard in shards for file in shard.rows()],
        labels=np.array(labels, np.int64),
        classes=classes,
        splits=np.array(splits, np.int64),
        warnings=warnings,
    )
    return collect_files(listed, tree.path, request)


def read_rows(tree: Tree) -> Sequence[File]:
    """Return the encoded images of a single file, one for each row."""
    return _Shard(tree.files[0]).rows()


class _Shard:
    """One Parquet file. Row groups are read as they are needed, and the last one is kept."""

    def __init__(self, file: File) -> None:
        self.file = file
        self._lock = threading.Lock()
        self._group = -1
        self._images: Any = None
        with self._open() as content:
            self._metadata = content.metadata
            schema = content.schema_arrow
        self.image = next((name for name in _IMAGE_COLUMNS if name in schema.names), None)
        self.label = next((name for name in _LABEL_COLUMNS if name in schema.names), None)
        if self.image is None:
            raise DataError(
                f"{file.path} has the columns {list_names(schema.names)}; images are read from a "
                "column called image or img"
            )
        self._about = schema.metadata or {}
        groups = range(self._metadata.num_row_groups)
        self._starts = np.cumsum([0, *(self._metadata.row_group(at).num_rows for at in groups)])

    @contextmanager
    def _open(self) -> Iterator[Any]:
        """Open the file.

        Raises:
            DataError: It is damaged, or pyarrow is not installed.
        """
        try:
            import pyarrow.parquet
        except ImportError:
            raise DataError(
                "reading Parquet files needs an extra: pip install 'vggnet[parquet]'"
            ) from None
        try:
            with self.file.open() as opened:
                yield pyarrow.parquet.ParquetFile(opened)
        except DataError:
            raise
        except Exception as error:  # pyarrow raises almost anything on a damaged file
            raise DataError(f"{self.file.path} is not a readable Parquet file ({error})") from None

    def __len__(self) -> int:
        return int(self._starts[-1])

    def class_names(self) -> list[str] | None:
        """Return the names of the labels 0, 1, …, where the file says them."""
        try:
            features = json.loads(self._about[b"huggingface"])["info"]["features"]
            names = features[self.label]["names"]
        except (KeyError, ValueError, TypeError):
            return None
        return [str(name) for name in names]

    def read_labels(self) -> list[object]:
        """Return the label of each row; None for a row without."""
        if self.label is None:
            return [None] * len(self)
        with self._open() as content:
            return list(content.read(columns=[self.label]).column(0).to_pylist())

    def rows(self) -> list[File]:
        """Return the images as files."""
        return [
            File(
                f"{self.file.name}:{row + 1}",
                f"{self.file.path}:{row + 1}",
                0,
                self.file.stamp,
                partial(self._open_row, row),
            )
            for row in range(len(self))
        ]

    def _open_row(self, row: int) -> IO[bytes]:
        """Return the bytes of an image.

        Raises:
            OSError: They are not there, or damaged.
        """
        group = int(np.searchsorted(self._starts, row, "right")) - 1
        try:
            with self._lock:
                if group != self._group:
                    size = self._metadata.row_group(group).total_byte_size
                    check_memory(size, f"row group {group} of {self.file.path}")
                    with self._open() as file:
                        self._images = file.read_row_group(group, [self.image]).column(0)
                    self._group = group
                cell = self._images[row - int(self._starts[group])].as_py()
        except DataError as error:
            raise OSError(errno.EIO, str(error)) from None
        content = cell.get("bytes") if isinstance(cell, dict) else cell
        if not isinstance(content, bytes):
            raise OSError(errno.EINVAL, "the row holds no image, only perhaps a path")
        return io.BytesIO(content)


def _find_files(tree: Tree) -> list[File]:
    return [file for file in tree.files if file.base.lower().endswith(".parquet")]


def _find_split(file: File) -> int:
    """Return a shard's split, by its name or its folder's."""
    for name in (file.base, file.folder.rpartition("/")[2]):
        if (split := find_split_in(name)) is not None:
            return split
    raise DataError(f"{file.path}: the name does not tell the split; call it train-… or test-…")


def _dataset_folder(file: File) -> str:
    above, _, last = file.folder.rpartition("/")
    return above if find_split_in(last) is not None else file.folder
