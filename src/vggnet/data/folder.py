"""A user's own images, a folder for each class (or IDX files), as uint8 arrays."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vggnet.data.catalog import CATALOG
from vggnet.data.dataset import Dataset, LabeledImages
from vggnet.data.decode import Header, load_image, read_header
from vggnet.data.idx import Source, read_idx
from vggnet.data.image import fit_image
from vggnet.data.listing import (
    check_name,
    has_idx_files,
    list_images,
    open_folder,
    refusals,
    visible,
)
from vggnet.data.memory import check_memory
from vggnet.data.progress import track
from vggnet.data.warnings import collect_warnings, list_bad
from vggnet.errors import ConfigError, DataError, ImageError

_DEFAULT_SIDE, _MOST_OWN_SIDE = 32, 64
"""Images of one size keep it up to 64 pixels; all others are fitted to 32."""

_MOST_READERS = 8
"""Threads that decode. Each holds a whole image: of 24 megapixels 240 MB, or 1.2 GB where it is
partly transparent."""


@dataclass(frozen=True)
class FolderImages:
    """All images of a folder, those to learn from first."""

    images: npt.NDArray[np.uint8]
    """(N, C, S, S)."""
    labels: npt.NDArray[np.int64]
    """(N,)."""
    classes: tuple[str, ...]
    train_size: int
    """The first so many are to learn from, the others for the test."""
    own_test: bool
    """Whether the folder itself says which those are."""
    warnings: tuple[str, ...] = ()

    @property
    def sha256(self) -> str:
        """One hash over pixels, labels, class names and split."""
        words = json.dumps([self.images.shape, self.train_size, *self.classes])
        digest = hashlib.sha256(words.encode())
        digest.update(np.ascontiguousarray(self.images).data)
        digest.update(self.labels.astype("<i8").data)
        return digest.hexdigest()


@refusals()
def is_folder(name: str) -> bool:
    """Whether a dataset's name means a folder of images, or a zip of one.

    Raises:
        DataError: The system does not say.
    """
    path = Path(name)
    return name not in CATALOG and (path.is_dir() or (path.suffix == ".zip" and path.is_file()))


def dataset_name(name: str) -> str:
    """Return what to call a dataset: its own name, or its folder's."""
    return name if name in CATALOG else Path(name).resolve().name.removesuffix(".zip")


def load_folder(
    path: Path,
    *,
    image_size: int | None = None,
    skip_bad: bool = False,
    memory: int | None = None,
) -> Dataset:
    """Load a user's own images to train on; see `read_folder`.

    Raises:
        ConfigError: `image_size` is not that of the IDX files.
        DataError: There is nothing to learn from, a file or its folder cannot be read, a name is
            not valid UTF-8, or memory is short.
    """
    name = dataset_name(str(path))
    check_name(name)
    found = read_folder(path, image_size=image_size, skip_bad=skip_bad, memory=memory)
    size, kinds = found.train_size, len(found.classes)
    if kinds < 2:
        raise DataError(
            f"{path} has one class alone, {found.classes[0]}: there is nothing to tell apart"
        )
    if not 0 < size < len(found.labels):
        part = "test" if size else "train"
        raise DataError(
            f"{path} has too few images: none is left to {part} on; a class needs at least two"
        )
    kept = "test set" if found.own_test else "held-out sixth"
    train, test = found.images[:size], found.images[size:]
    train_labels, test_labels = found.labels[:size], found.labels[size:]
    return Dataset(
        name=name,
        classes=found.classes,
        train=LabeledImages(train, train_labels, kinds, f"{path}, training set"),
        test=LabeledImages(test, test_labels, kinds, f"{path}, {kept}"),
        sha256=found.sha256,
        warnings=(
            *found.warnings,
            *collect_warnings(train, test, train_labels, test_labels, found.classes),
        ),
    )


def read_folder(
    path: Path,
    *,
    channels: int | None = None,
    image_size: int | None = None,
    skip_bad: bool = False,
    memory: int | None = None,
) -> FolderImages:
    """Read a folder, or a zip of one, that holds a folder of images for each class.

    Where it holds `train/` and `test/`, the classes are in those; otherwise a sixth of each
    class is for the test, by a fixed seed and the files' names. A folder with the four IDX
    files of MNIST's kind is read as well.

    Args:
        path: The folder.
        channels: 1 for grey, 3 for colour; by default grey where all images are.
        image_size: Pixels a side to fit to; by default the images' own where all have
            one size of at most 64, and 32 otherwise.
        skip_bad: Whether to leave unreadable files out.
        memory: Bytes that the images may take; by default what is free.

    Raises:
        ConfigError: `image_size` is not that of the IDX files.
        DataError: There are no images, a file or its folder cannot be read, a name is not
            valid UTF-8, or memory is short.
    """
    root = open_folder(path)
    with refusals():
        holds_idx_files = has_idx_files(visible(root))
    if holds_idx_files:
        found = _read_idx_files(root, path)
        if image_size not in (None, max(found.images.shape[2:])):
            raise ConfigError(
                f"{path} holds IDX files of {found.images.shape[2]} × {found.images.shape[3]} "
                f"pixels, which are not fitted to {image_size}"
            )
        return found
    listing = list_images(root, path)
    headers, bad = _read_headers(listing.files)
    side = image_size or _choose_side(headers)
    channels = channels or (1 if all(header.grey for header in headers) else 3)
    check_memory(len(listing.files), channels, side, memory)
    images = _read_images(listing.files, channels, side, bad)
    warnings = [f"class {name} of {path} is empty and left out" for name in listing.empty]
    kept = np.array([number not in bad for number in range(len(images))])
    if bad:
        names = {_name(listing.files[number], root): why for number, why in sorted(bad.items())}
        sentence = list_bad(names, len(images), str(path))
        if not skip_bad or not kept.any():
            raise DataError(f"{sentence}; mend or remove them, or leave them out: --skip-bad")
        warnings.append(f"{sentence}; they were left out")
        images = images[kept]
    return FolderImages(
        images=images,
        labels=np.array(listing.labels, np.int64)[kept],
        classes=listing.classes,
        train_size=int(kept[: listing.train_size].sum()),
        own_test=listing.own_test,
        warnings=tuple(warnings),
    )


def _read_headers(files: Sequence[Source]) -> tuple[list[Header], dict[int, str]]:
    """Return what the readable files say of themselves, and why the others are none."""
    headers, bad = [], {}
    for number, file in enumerate(files):
        try:
            headers.append(read_header(file))
        except ImageError as error:
            bad[number] = str(error)
    return headers, bad


def _choose_side(headers: Sequence[Header]) -> int:
    sides = {header.side for header in headers}
    return sides.pop() if len(sides) == 1 and max(sides) <= _MOST_OWN_SIDE else _DEFAULT_SIDE


def _read_images(
    files: Sequence[Source], channels: int, side: int, bad: dict[int, str]
) -> npt.NDArray[np.uint8]:
    """Return all images, blank where a file is bad; what turns out so is added to `bad`."""
    images = np.zeros((len(files), channels, side, side), np.uint8)

    def read(number: int) -> None:
        try:
            image = load_image(files[number], side=side)
            images[number] = fit_image(image, channels, side, side)
        except ImageError as error:
            bad[number] = str(error)

    good = [number for number in range(len(files)) if number not in bad]
    # While it decodes, Pillow lets other threads run.
    with ThreadPoolExecutor(min(_MOST_READERS, os.cpu_count() or 1)) as pool:
        list(track(pool.map(read, good), "reading images", len(good)))
    return images


def _name(file: Source, root: Source) -> str:
    return str(file).removeprefix(str(root)).lstrip("/\\")


def _read_idx_files(root: Source, path: Path) -> FolderImages:
    """Read MNIST's four files, under its names or longer ones that have the same parts."""
    arrays = {
        (split, kind): read_idx(_find_idx(root, path, split, f"{kind}-idx{dimensions}"), dimensions)
        for split in ("train", "test")
        for kind, dimensions in (("images", 3), ("labels", 1))
    }
    images, labels = (
        [arrays[split, kind] for split in ("train", "test")] for kind in ("images", "labels")
    )
    for some, their in zip(images, labels, strict=True):
        if len(some) != len(their) or some.shape[1:] != images[0].shape[1:]:
            raise DataError(
                f"{path}: the IDX files do not belong together: images of shapes "
                f"{images[0].shape} and {images[1].shape}, {len(labels[0]):,} and "
                f"{len(labels[1]):,} labels"
            )
    together = np.concatenate(labels).astype(np.int64)
    return FolderImages(
        images=np.concatenate(images)[:, np.newaxis],
        labels=together,
        classes=tuple(str(number) for number in range(together.max(initial=0) + 1)),
        train_size=len(labels[0]),
        own_test=True,
    )


def _find_idx(root: Source, path: Path, split: str, part: str) -> Source:
    marks = ("train",) if split == "train" else ("t10k", "test")
    for file in sorted(visible(root), key=str):
        if part in file.name and any(mark in file.name for mark in marks):
            return file
    raise DataError(f"{path} has IDX files, but no {marks[0]}-{part}-ubyte or the same with .gz")
