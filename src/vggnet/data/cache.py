"""Decoded images in files that are mapped into memory: for datasets larger than memory.

An entry is a folder with the pixels, the rows and a description. The description is written
last and makes the entry complete: what a killed build leaves behind is never read, and the
next build deletes it and starts over. Each build has a folder of its own, so two of them at a
time do no harm.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import shutil
import time
import uuid
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import PIL

from vggnet.data.collection import Collection, Digest, Request, Rows
from vggnet.data.files import File, cache_folder
from vggnet.data.lock import one_at_a_time

LIMIT = 64 << 30
"""Bytes of all entries together; above it, those that were unused for longest are deleted."""

_ABANDONED = 24 * 3600
"""Seconds after which an entry that is not complete, and not written to, is deleted."""

_FORMAT = 2
_PIXELS, _ROWS, _DESCRIPTION = "images.u8", "rows.npz", "entry.json"

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Entry:
    """A complete entry."""

    folder: Path
    source: str
    """The dataset's path."""
    count: int
    """Images."""
    size: int
    """Bytes."""
    used: float
    """Time of last use, in seconds since 1970."""


def entry_stem(
    source: Path,
    files: Sequence[File],
    labels: npt.NDArray[np.int64],
    classes: Sequence[str],
    splits: npt.NDArray[np.int64],
    request: Request,
) -> Path | None:
    """Return the path with which the folders of an entry begin; None for a user without a cache.

    It depends on the files' names, sizes and times, on labels and splits, and on what is asked
    for.
    """
    root = cache_folder("decoded")
    if root is None:
        return None
    asked = asdict(request)
    wanted = [asked.pop(name) for name in ("channels", "image_size", "bit_depth")]
    del asked["cache"], asked["class_order"]  # the order is in `classes`
    # Decoders of another version can differ in the last bits.
    facts = [_FORMAT, PIL.__version__, str(source.resolve()), asked, *classes]
    digest = hashlib.sha256(json.dumps(facts).encode())
    for file in files:
        line = f"{file.name}\0{file.size}\0{file.stamp}\0"
        digest.update(line.encode(errors="surrogateescape"))
    digest.update(labels.astype("<i8").data)
    digest.update(splits.astype("<i8").data)
    return root / "-".join([digest.hexdigest()[:32], *(str(one or "auto") for one in wanted)])


def build_entry(
    stem: Path,
    source: Path,
    names: Sequence[str],
    request: Request,
    build: Callable[[Path], Collection],
) -> Collection:
    """Return an entry, built now unless another process has just done so.

    If that fails, nothing is left of it.

    Args:
        stem: As `entry_stem` returns it.
        source: The dataset's path.
        names, request: As `find_entry` takes them.
        build: Writes the pixels into a folder and returns them mapped; see `write_pixels`.

    Raises:
        OSError: The cache cannot be written.
    """
    stem.parent.mkdir(parents=True, exist_ok=True)
    with one_at_a_time(stem.with_name(f"{stem.name}.lock")) as alone:
        if found := find_entry(stem, names, request):
            return found
        if alone:
            for left in stem.parent.glob(f"{stem.name}.*"):
                shutil.rmtree(left, ignore_errors=True)
        folder = stem.with_name(f"{stem.name}.{uuid.uuid4().hex[:8]}")
        try:
            collection = build(folder)
            _complete(folder, source, collection)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        evict(keep=folder)
        return collection


def find_entry(stem: Path, names: Sequence[str], request: Request) -> Collection | None:
    """Map an entry into memory, or another one of the same files with the same result.

    `vggnet evaluate` asks for the size that training had found by itself.

    Args:
        stem: As `entry_stem` returns it.
        names: What messages call each of the images found.
        request: How the images are wanted.
    """
    for folder in stem.parent.glob(f"{stem.name}.*"):
        if found := _load_entry(folder, names):
            return found
    wanted = (request.channels, request.image_size, request.image_size)
    if None in wanted:
        return None
    for other in stem.parent.glob(f"{stem.name.partition('-')[0]}-*"):
        found = _load_entry(other, names)
        if found and found.images.shape[1:] == wanted and found.bit_depth == request.bit_depth:
            return found
    return None


def _load_entry(folder: Path, names: Sequence[str]) -> Collection | None:
    """Map an entry into memory; None if it is not complete."""
    try:
        about = json.loads((folder / _DESCRIPTION).read_text(encoding="utf-8"))
        with np.load(folder / _ROWS, allow_pickle=False) as arrays:
            order, labels = arrays["order"], arrays["labels"]
        rows = {**about["rows"], "warnings": tuple(about["rows"]["warnings"])}
        shape = (len(order), *about["shape"])
        if (folder / _PIXELS).stat().st_size != math.prod(shape):
            return None
        images = np.memmap(folder / _PIXELS, np.uint8, "r", shape=shape)
        os.utime(folder / _DESCRIPTION)
        return Collection(
            images,
            Rows(order, labels, tuple(about["classes"]), **rows),
            [names[at] for at in order],
            about["bit_depth"],
            tuple(about["warnings"]),
            Digest(**about["digest"]),
        )
    except (OSError, ValueError, KeyError, TypeError, IndexError, zipfile.BadZipFile):
        return None  # damaged, or of another version


def write_pixels(folder: Path, images: Iterable[Pixels], size: int) -> None:
    """Begin an entry with its pixels.

    Written as a stream, so that the pixels never fill the memory, and a full disk is an error
    and not a signal.

    Args:
        folder: The entry.
        images: The images, one after the other, all of one shape.
        size: Bytes that they will take at most.

    Raises:
        OSError: The disk does not take them.
    """
    if size > (free := shutil.disk_usage(folder.parent).free):
        raise OSError(None, f"{size / 1e9:,.1f} GB are needed, {free / 1e9:,.1f} GB are free")
    folder.mkdir()
    with (folder / _PIXELS).open("wb") as file:
        for image in images:
            file.write(image.data)


def map_pixels(folder: Path, shape: tuple[int, int, int]) -> Pixels:
    """Map what `write_pixels` wrote into memory, (N, *shape)."""
    count = (folder / _PIXELS).stat().st_size // math.prod(shape)
    return np.memmap(folder / _PIXELS, np.uint8, "r", shape=(count, *shape))


def _complete(folder: Path, source: Path, collection: Collection) -> None:
    """Describe an entry whose pixels are written, which makes it complete.

    Raises:
        OSError: The disk does not take it.
    """
    rows = collection.rows
    about = {
        "source": str(source.resolve()),
        "shape": collection.images.shape[1:],
        "classes": rows.classes,
        "rows": {
            "train_size": rows.train_size,
            "test_size": rows.test_size,
            "own_test": rows.own_test,
            "warnings": rows.warnings,
        },
        "bit_depth": collection.bit_depth,
        "warnings": collection.warnings,
        "digest": asdict(collection.digest),
    }
    np.savez(folder / _ROWS, order=rows.order, labels=rows.labels)
    temporary = folder / f"{_DESCRIPTION}.tmp"
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(about, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(folder / _DESCRIPTION)


def list_entries() -> list[Entry]:
    """Return the complete entries, the one used last first."""
    root = cache_folder("decoded")
    entries = []
    for about in root.glob(f"*/{_DESCRIPTION}") if root else ():
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
            source = json.loads(about.read_text(encoding="utf-8"))["source"]
            with np.load(about.parent / _ROWS, allow_pickle=False) as arrays:
                count = len(arrays["labels"])
            size = sum(file.stat().st_size for file in about.parent.iterdir())
            entries.append(Entry(about.parent, source, count, size, about.stat().st_mtime))
    return sorted(entries, key=lambda entry: -entry.used)


def clear_cache() -> int:
    """Delete all entries, incomplete ones too, and return the bytes that were freed."""
    root = cache_folder("decoded")
    if root is None:
        return 0
    size = sum(file.stat().st_size for file in root.glob("*/*") if file.is_file())
    shutil.rmtree(root, ignore_errors=True)
    return size


def evict(keep: Path, limit: int = LIMIT) -> None:
    """Delete the entries that were unused for longest, until all take at most `limit` bytes.

    What killed builds left a day ago is deleted, too.

    Args:
        keep: The entry that is in use; never deleted.
        limit: Bytes.
    """
    for folder in keep.parent.iterdir():
        with contextlib.suppress(OSError):  # another process completes or deletes it meanwhile
            if folder.is_dir() and not (folder / _DESCRIPTION).exists():
                files = (file.stat().st_mtime for file in folder.iterdir())
                changed = max(files, default=folder.stat().st_mtime)
                if time.time() - changed > _ABANDONED:
                    shutil.rmtree(folder, ignore_errors=True)
    size = 0
    for entry in list_entries():
        size += entry.size
        if size > limit and entry.folder != keep:
            shutil.rmtree(entry.folder, ignore_errors=True)
            size -= entry.size
