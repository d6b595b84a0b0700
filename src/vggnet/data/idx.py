"""IDX bytes to arrays; the format is described at http://yann.lecun.com/exdb/mnist/."""

from __future__ import annotations

import gzip
import hashlib
import io
import math
import zipfile
import zlib
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from vggnet.errors import DataError

Source = Path | zipfile.Path
"""A file, or a file in a zip."""

_UNSIGNED_BYTE, _INT = 0x08, 0x0C
"""The IDX type codes of uint8, which MNIST and its kin use, and of int32: QMNIST's labels."""

_DEFLATE_LIMIT = 1032
"""Deflate never expands a byte to more (zlib's technical notes); a claim beyond is a lie."""


def read_idx(path: Source, dimensions: int) -> npt.NDArray[np.uint8]:
    """Read an IDX file, raw or gzipped (told apart by content), as a uint8 array.

    Magic, dimensions and length are checked before anything of the claimed size is
    allocated: a header of 16 bytes cannot cost memory.

    Args:
        path: The file.
        dimensions: How many the array must have: 1 for labels, 3 for images.

    Raises:
        DataError: The file is missing, unreadable, of another kind, or not of the
            length that its header says.
    """
    return _open_and_read(path, dimensions, _UNSIGNED_BYTE)


def read_idx_int(path: Source, dimensions: int) -> npt.NDArray[np.int32]:
    """Read an IDX file of int32; otherwise as `read_idx`."""
    return _open_and_read(path, dimensions, _INT).view(">i4").astype(np.int32)


def idx_sha256(array: npt.NDArray[np.integer[Any]]) -> str:
    """Return the SHA-256 of the unpacked IDX file that holds a uint8 or int32 array."""
    code = _UNSIGNED_BYTE if array.dtype == np.uint8 else _INT
    digest = hashlib.sha256(bytes((0, 0, code, array.ndim)))
    digest.update(np.array(array.shape, ">u4").tobytes())
    stored = array if code == _UNSIGNED_BYTE else array.astype(">i4")
    digest.update(np.ascontiguousarray(stored).data)
    return digest.hexdigest()


def _open_and_read(path: Source, dimensions: int, code: int) -> npt.NDArray[np.uint8]:
    try:
        with cast("io.BufferedReader", path.open("rb")) as file:
            size = _size(path)
            if file.peek(2)[:2] == b"\x1f\x8b":
                with gzip.GzipFile(fileobj=file) as unzipped:
                    return _read(unzipped, dimensions, code, path, size * _DEFLATE_LIMIT)
            return _read(file, dimensions, code, path, size)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist") from None
    except (gzip.BadGzipFile, zipfile.BadZipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path} is a damaged gzip file ({error}); fetch it again") from None
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from None


def _size(path: Source) -> int:
    if isinstance(path, Path):
        return path.stat().st_size
    return path.root.getinfo(path.at).file_size


def _read(
    file: io.BufferedIOBase, dimensions: int, code: int, path: Source, most: int
) -> npt.NDArray[np.uint8]:
    """Return the bytes of the array, its last dimension as many times longer as a value has."""
    header = file.read(4 + 4 * dimensions)
    if len(header) < 4 or header[:2] != b"\0\0":
        raise DataError(f"{path} is not an IDX file: it must begin with two zero bytes")
    if header[2] != code:
        kind = "uint8" if code == _UNSIGNED_BYTE else "int32"
        raise DataError(
            f"{path} holds IDX type 0x{header[2]:02x}; only 0x{code:02x} ({kind}) is read"
        )
    if header[3] != dimensions:
        what = "images" if dimensions == 3 else "labels"
        raise DataError(
            f"{path} has {header[3]} dimensions where {what} have {dimensions}; "
            "are images and labels swapped?"
        )
    if len(header) < 4 + 4 * dimensions:
        raise DataError(f"{path} ends inside its header, at byte {len(header)}")
    shape = np.frombuffer(header, ">u4", offset=4).tolist()
    shape[-1] *= 4 if code == _INT else 1
    expected = math.prod(shape)
    if expected + len(header) > most:
        raise DataError(
            f"{path} is too short: its header claims {' × '.join(map(str, shape))} = "
            f"{expected:,} bytes, the file cannot hold more than {max(most - len(header), 0):,}"
        )
    array = np.empty(expected, np.uint8)
    filled = 0
    while count := file.readinto(array[filled:].data):
        filled += count
    more = bool(file.read(1))
    if filled < expected or more:
        found = "more" if more else f"only {filled:,}"
        raise DataError(
            f"{path} does not hold what its header claims: {expected:,} bytes expected, "
            f"{found} found"
        )
    return array.reshape(shape)
