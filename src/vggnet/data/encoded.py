"""Encoded image files, from a folder, a zip or a Parquet file, become a collection."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from vggnet.data import cache
from vggnet.data.ahead import work_ahead
from vggnet.data.collection import Collection, Request, Rows, arrange, list_names
from vggnet.data.decode import (
    SUFFIXES,
    Header,
    find_bit_depth,
    load_fitted,
    read_header,
)
from vggnet.data.files import File
from vggnet.data.image_cost import UnknownFormatError
from vggnet.data.memory import MemoryBudget, available_bytes, check_memory
from vggnet.data.progress import track
from vggnet.errors import DataError, ImageError

S = TypeVar("S")
T = TypeVar("T")
Pixels = npt.NDArray[np.uint8]

_DEFAULT_SIDE, _LARGEST_OWN_SIDE = 32, 64
"""Images of one size keep it up to 64 pixels a side; all others are fitted to 32."""

_MOST_THREADS = 8
"""Threads that decode; Pillow lets others run meanwhile, and they share a `MemoryBudget`."""

_CHUNK = 8
"""Files that a thread takes at a time, so that passing on small images takes little."""

_IN_MEMORY = 1 << 30
"""Bytes of decoded images above which they are kept on disk by default."""


@dataclass(frozen=True)
class LabelledFiles:
    """Image files with their labels, sorted as they will be stored."""

    files: Sequence[File]
    labels: npt.NDArray[np.int64]
    """Positions in `classes`, (N,)."""
    classes: Sequence[str]
    splits: npt.NDArray[np.int64]
    """TRAIN, TEST or VALIDATION, (N,)."""
    left_out: Sequence[str] = ()
    """Names of files that are not images."""
    warnings: Sequence[str] = ()


def collect_files(found: LabelledFiles, source: Path, request: Request) -> Collection:
    """Decode image files, or map them from the cache.

    Args:
        found: The files.
        source: The dataset's path.
        request: How the images are wanted.

    Raises:
        DataError: A file is unreadable and may not be skipped, nothing is an image, or neither
            memory nor disk has room.
    """
    stem = None
    if request.cache is not False:
        stem = cache.entry_stem(
            source, found.files, found.labels, found.classes, found.splits, request
        )
    names = [file.path for file in found.files]
    if stem and (entry := cache.find_entry(stem, names, request)):
        return entry
    plan = _make_plan(found, source, request)
    free = available_bytes()
    if stem and (
        request.cache or plan.size > _IN_MEMORY or (free is not None and plan.size > free // 2)
    ):

        def build(folder: Path) -> Collection:
            cache.write_pixels(folder, plan.decode(), plan.size)
            return plan.collect(cache.map_pixels(folder, plan.shape), names)

        try:
            return cache.build_entry(stem, source, names, request, build)
        except OSError as error:
            if request.cache:
                raise DataError(
                    f"cannot keep the decoded images in {stem.parent}: {error.strerror or error}; "
                    "set VGGNET_CACHE_DIR to a folder with room"
                ) from None
    check_memory(
        plan.size,
        f"{source}: {len(plan.files):,} images × {' × '.join(map(str, plan.shape))} bytes",
        "; use fewer or smaller images, or set VGGNET_CACHE_DIR to a folder with room on disk",
    )
    images = np.empty((len(plan.files), *plan.shape), np.uint8)
    count = 0
    for count, image in enumerate(plan.decode(), 1):
        images[count - 1] = image
    return plan.collect(images[:count], names)


@dataclass
class _Plan:
    """What is settled once all headers are read."""

    files: Sequence[File]
    """In the order of `rows`."""
    rows: Rows
    shape: tuple[int, int, int]
    bit_depth: int | None
    bad: dict[int, ImageError]
    """Why files cannot be read, by their place in `files`."""
    source: Path
    skip_bad: bool
    warnings: Sequence[str]

    @property
    def size(self) -> int:
        """Bytes of all images."""
        return len(self.files) * math.prod(self.shape)

    def decode(self) -> Iterator[Pixels]:
        """Yield the images that can be read, in order; the others are added to `bad`."""
        channels, side, _ = self.shape
        budget = MemoryBudget()

        def load(number: int) -> Pixels | ImageError:
            try:
                return load_fitted(self.files[number], channels, side, self.bit_depth, budget)
            except ImageError as error:
                return error

        good = [number for number in range(len(self.files)) if number not in self.bad]
        for number, image in zip(good, _in_threads(load, good, "reading images"), strict=True):
            if isinstance(image, ImageError):
                self.bad[number] = image
            else:
                yield np.ascontiguousarray(image)

    def collect(self, images: Pixels, names: Sequence[str]) -> Collection:
        """Return what was decoded.

        Raises:
            DataError: There are bad files, and they may not be skipped.
        """
        kept = np.array([number not in self.bad for number in range(len(self.files))])
        warnings = list(self.warnings)
        if self.bad:
            reasons = [f"{self.files[at].name} ({why})" for at, why in sorted(self.bad.items())]
            sentence = (
                f"{len(reasons):,} of {len(self.files):,} files in {self.source} cannot be read: "
                f"{list_names(reasons)}"
            )
            if not self.skip_bad or not kept.any():
                raise DataError(f"{sentence}; repair or remove them, or leave them out: --skip-bad")
            warnings.append(f"{sentence}; they were left out")
        rows = self.rows.keep(kept)
        return Collection(
            images, rows, [names[at] for at in rows.order], self.bit_depth, tuple(warnings)
        )


def _make_plan(found: LabelledFiles, source: Path, request: Request) -> _Plan:
    """Read all headers, and choose what all images have in common.

    Raises:
        DataError: No file is an image.
    """
    headers = [*_in_threads(_try_header, found.files, "reading headers")]
    strange = _find_strange(found.files, headers)
    used = np.setdiff1d(np.arange(len(found.files)), strange)
    rows = arrange(
        found.labels[used], found.classes, found.splits[used], str(source), request.common_classes
    )
    rows = replace(rows, order=used[rows.order])
    files = [found.files[at] for at in rows.order]
    left_out = sorted([*found.left_out, *(found.files[at].name for at in strange)])
    if not files:
        raise DataError(
            f"{source} has no images" + (f", only {list_names(left_out)}" if left_out else "")
        )
    ordered = [headers[at] for at in rows.order]
    bad = {at: header for at, header in enumerate(ordered) if isinstance(header, ImageError)}
    good = {at: header for at, header in enumerate(ordered) if isinstance(header, Header)}
    channels = request.channels or (1 if all(one.grey for one in good.values()) else 3)
    side = request.image_size or _choose_side(good.values())
    bit_depth = None
    warnings = [*found.warnings, *describe_left_out(left_out, str(source))]
    if deep := [at for at, header in good.items() if header.deep]:
        bit_depth = request.bit_depth or _choose_bit_depth(files, deep, bad)
        if request.bit_depth is None:
            warnings.append(
                f"images with more than 8 bits: {len(deep):,}; the largest value is within "
                f"{bit_depth}, so {2**bit_depth - 1:,} counts as white; choose with --bit-depth"
            )
    if cut := sum(header.cut for header in good.values()):
        warnings.append(f"of {cut:,} images with 16 bits per colour the upper 8 are used")
    return _Plan(
        files, rows, (channels, side, side), bit_depth, bad, source, request.skip_bad, warnings
    )


def _find_strange(files: Sequence[File], headers: Sequence[Header | ImageError]) -> list[int]:
    """Return the positions of files that are images neither by content nor by name."""
    return [
        at
        for at, (file, header) in enumerate(zip(files, headers, strict=True))
        if isinstance(header, UnknownFormatError) and not file.base.lower().endswith(SUFFIXES)
    ]


def describe_left_out(names: Sequence[str], source: str) -> list[str]:
    """Return the warning that names the files that are not images, if there are any."""
    if not names:
        return []
    return [
        f"{len(names):,} files in {source} are not images and are left out: {list_names(names)}"
    ]


def _try_header(file: File) -> Header | ImageError:
    try:
        return read_header(file)
    except ImageError as error:
        return error


def _choose_side(headers: Iterable[Header]) -> int:
    sides = {header.side for header in headers}
    return sides.pop() if len(sides) == 1 and max(sides) <= _LARGEST_OWN_SIDE else _DEFAULT_SIDE


def _choose_bit_depth(
    files: Sequence[File], deep: Sequence[int], bad: dict[int, ImageError]
) -> int:
    """Return the depth that the largest value of all deep images needs."""
    budget = MemoryBudget()

    def find(place: int) -> int | ImageError:
        try:
            return find_bit_depth(files[place], budget)
        except ImageError as error:
            return error

    depths = dict(zip(deep, _in_threads(find, deep, "finding the bit depth"), strict=True))
    bad |= {place: depth for place, depth in depths.items() if isinstance(depth, ImageError)}
    return max((depth for depth in depths.values() if isinstance(depth, int)), default=8)


def _in_threads(work: Callable[[S], T], items: Sequence[S], what: str) -> Iterator[T]:
    """Yield the results in order, with a progress bar."""
    threads = min(_MOST_THREADS, os.cpu_count() or 1)
    size = max(1, min(_CHUNK, len(items) // (4 * threads)))
    chunks = [items[start : start + size] for start in range(0, len(items), size)]
    done = work_ahead(lambda chunk: [*map(work, chunk)], chunks, threads, 2 * threads)
    return track(itertools.chain.from_iterable(done), what, len(items))
