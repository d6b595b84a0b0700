"""IDX bytes to uint8 arrays; the format is described at http://yann.lecun.com/exdb/mnist/."""

from __future__ import annotations

import gzip
import io
import math
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vggnet.errors import DataError

_UNSIGNED_BYTE = 0x08
"""The IDX type code of uint8, the only one that MNIST and its kin use."""

_DEFLATE_LIMIT = 1032
"""Deflate never expands a byte to more (zlib's technical notes); a claim beyond is a lie."""


def read_idx(path: Path, dimensions: int) -> npt.NDArray[np.uint8]:
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
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            if file.peek(2)[:2] == b"\x1f\x8b":
                with gzip.GzipFile(fileobj=file) as unzipped:
                    return _read(unzipped, dimensions, path, size * _DEFLATE_LIMIT)
            return _read(file, dimensions, path, size)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist") from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path} is a damaged gzip file ({error}); fetch it again") from None
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from None


def _read(file: io.BufferedIOBase, dimensions: int, path: Path, most: int) -> npt.NDArray[np.uint8]:
    header = file.read(4 + 4 * dimensions)
    if len(header) < 4 or header[:2] != b"\0\0":
        raise DataError(f"{path} is not an IDX file: it must begin with two zero bytes")
    if header[2] != _UNSIGNED_BYTE:
        raise DataError(f"{path} holds IDX type 0x{header[2]:02x}; only 0x08 (uint8) is read")
    if header[3] != dimensions:
        what = "labels" if dimensions == 1 else "images"
        raise DataError(
            f"{path} has {header[3]} dimensions where {what} have {dimensions}; "
            "are images and labels swapped?"
        )
    if len(header) < 4 + 4 * dimensions:
        raise DataError(f"{path} ends inside its header, at byte {len(header)}")
    shape = np.frombuffer(header, ">u4", offset=4).tolist()
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
