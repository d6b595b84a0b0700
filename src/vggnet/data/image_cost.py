"""What decoding an image file costs, read from its bytes without decoding it.

A file within every limit of bytes and pixels can still be expensive: a progressive JPEG of 1 MB
may hold 70,000 scans, each of which visits every pixel, and a TIFF of one pixel may ask for a
tile of 4 GB. `check_cost` counts scans and chunks and adds up the decoder's memory, for JPEG,
PNG, WebP, BMP, GIF, TIFF and PNM. It takes a few milliseconds per MB at most.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, prod

from vggnet.errors import ImageError

READABLE = "PNG, JPEG, WebP, BMP, GIF, TIFF or PNM"

MAX_SCANS = 100
"""Scans in one JPEG. Encoders write about 10. libtiff has the same limit for JPEG in TIFF."""

MAX_MEMORY = 4 << 30
"""Bytes. What the largest image that Pillow opens by default needs as WebP."""


class UnknownFormatError(ImageError):
    """A file has the signature of no format that is read."""


@dataclass(frozen=True)
class Cost:
    """What decoding the first frame of a file takes."""

    pixels: int
    """Width times height."""
    memory: int
    """Peak bytes of the decoder and its image, without what the caller makes of it."""


def check_cost(data: bytes, *, max_memory: int = MAX_MEMORY) -> Cost:
    """Return what decoding a file costs, or refuse the file.

    Args:
        data: The file's bytes.
        max_memory: Bytes that the decoder may use.

    Raises:
        UnknownFormatError: It is no image of the formats that are read.
        ImageError: Decoding costs too much, or the header is damaged.
    """
    try:
        cost = find_format(data)(data)
    except (struct.error, ArithmeticError, LookupError):
        raise ImageError("damaged: the header is cut off or contradicts itself") from None
    if cost.memory > max_memory:
        raise ImageError(
            f"decoding {cost.pixels:,} pixels takes {cost.memory / 2**20:,.0f} MiB of memory, "
            f"more than the limit of {max_memory / 2**20:,.0f} MiB"
        )
    return cost


def find_format(data: bytes) -> Callable[[bytes], Cost]:
    """Return the function that estimates the cost of a file, by its first bytes.

    Raises:
        UnknownFormatError: It is no image of the formats that are read.
    """
    for signature, estimate in _FORMATS.items():
        if re.match(signature, data, re.DOTALL):
            return estimate
    raise UnknownFormatError(f"not a {READABLE} image")


def _check_chunks(count: int, data: bytes) -> None:
    """Limit the chunks of a file: Pillow reads them one by one in Python, at up to 2 µs each."""
    # Encoders write chunks of 8 KiB and a few small ones. TIFF may have a strip for each row.
    limit = 10_000 + len(data) // 1024
    if count > limit:
        raise ImageError(f"more than {limit:,} chunks in {len(data):,} bytes")


# JPEG (ITU-T T.81)

_BASELINE, _EXTENDED, _PROGRESSIVE = 0xC0, 0xC1, 0xC2
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_SCAN = 0xDA
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD9)}
_MARKER = re.compile(rb"\xff[^\x00\xff]")


@dataclass(frozen=True)
class JpegFrame:
    """What a JPEG says before its pixels."""

    width: int
    height: int
    components: int
    """1 for grey."""
    coding: int
    """Its marker: baseline, progressive, …"""
    blocks: int
    """Blocks of 8×8 samples, of all components."""
    scan: int
    """Where the first scan's header begins, after its marker."""


def read_jpeg_frame(data: bytes) -> JpegFrame:
    """Read a JPEG's markers up to its first scan.

    Raises:
        ImageError: It is neither baseline nor progressive, or has too many chunks.
        struct.error, LookupError, ArithmeticError: It ends before, or contradicts itself.
    """
    coding = width = height = components = blocks = 0
    chunks, place = 0, 2
    while found := _MARKER.search(data, place):
        chunks += 1 + found.start() - place  # Pillow also reads stray bytes one by one
        _check_chunks(chunks, data)
        marker, place = data[found.end() - 1], found.end()
        if marker == _SCAN:
            break
        if marker in _FRAMES:
            coding = marker
            height, width, components = struct.unpack_from(">HHB", data, place + 3)
            factors = [data[place + 9 + 3 * index] for index in range(components)]
            blocks = _count_blocks(width, height, factors)
        if marker not in _WITHOUT_LENGTH:
            place += struct.unpack_from(">H", data, place)[0]
    if coding not in (_BASELINE, _EXTENDED, _PROGRESSIVE):
        raise ImageError("this JPEG is neither baseline nor progressive; convert it")
    return JpegFrame(width, height, components, coding, blocks, place)


def _count_blocks(width: int, height: int, factors: list[int]) -> int:
    across, down = [one >> 4 for one in factors], [one & 15 for one in factors]
    units = ceil(width / (8 * max(across, default=0))) * ceil(height / (8 * max(down, default=0)))
    return units * sum(h * v for h, v in zip(across, down, strict=True))


def _estimate_jpeg(data: bytes) -> Cost:
    frame = read_jpeg_frame(data)
    pixels = frame.width * frame.height
    if frame.coding != _PROGRESSIVE and data[frame.scan + 2] == frame.components:
        return Cost(pixels, 4 * pixels)  # the decoder stops after one scan of all components
    # An upper bound: after an error libjpeg looks for markers even inside of segments.
    scans = data.count(bytes((0xFF, _SCAN)))
    if scans > MAX_SCANS:
        raise ImageError(f"a JPEG of {scans:,} scans; the limit is {MAX_SCANS}")
    return Cost(pixels, 4 * pixels + 128 * frame.blocks)  # coefficients of 2 bytes


# PNG (W3C)

_COMPRESSED = (b"zTXt", b"iTXt", b"iCCP")
_COMPRESSED_BYTES = 1 << 20
"""What Pillow inflates of one such chunk, and 64 times as much of all."""


def _estimate_png(data: bytes) -> Cost:
    place, chunks, pixels, compressed = 8, 0, 0, 0
    while place + 8 <= len(data):
        chunks += 1
        _check_chunks(chunks, data)
        length, kind = struct.unpack_from(">I4s", data, place)
        if kind == b"IHDR":  # there may be several
            pixels = max(pixels, prod(struct.unpack_from(">II", data, place + 8)))
        compressed += kind in _COMPRESSED
        place += 12 + length
    return Cost(pixels, 4 * pixels + min(compressed, 64) * _COMPRESSED_BYTES)


# WebP (RFC 9649)


def _estimate_webp(data: bytes) -> Cost:
    kind = data[12:16]
    if kind == b"VP8X":
        low, high = struct.unpack_from("<IH", data, 24)
        width, height = (low & 0xFFFFFF) + 1, (high << 8 | low >> 24) + 1
    elif kind == b"VP8L":
        (sides,) = struct.unpack_from("<I", data, 21)
        width, height = (sides & 0x3FFF) + 1, (sides >> 14 & 0x3FFF) + 1
    else:
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
    # Four bytes each in the decoder's two canvases, its frame, that frame's transforms, the
    # bytes that it returns, and Pillow's image.
    return Cost(width * height, 24 * width * height)


# BMP (Microsoft, BITMAPINFOHEADER)


def _estimate_bmp(data: bytes) -> Cost:
    (header,) = struct.unpack_from("<I", data, 14)
    width, height = struct.unpack_from("<HH" if header == 12 else "<ii", data, 18)
    pixels = abs(width * height)
    # Run lengths are unpacked into two more copies; one instruction can skip 255 rows.
    return Cost(pixels, 8 * pixels + 256 * abs(width))


# GIF (CompuServe, GIF89a)


def _estimate_gif(data: bytes) -> Cost:
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    place = 13 + (2 << (flags & 7)) * 3 * (flags >> 7)
    chunks = 0
    while data[place] == ord("!"):
        place += 2
        while True:
            chunks += 1
            _check_chunks(chunks, data)
            size = data[place]
            place += 1 + size
            if not size:
                break
    if data[place] == ord(","):  # a frame that reaches beyond the screen enlarges the image
        left, top, columns, rows = struct.unpack_from("<4H", data, place + 1)
        width, height = max(width, left + columns), max(height, top + rows)
    return Cost(width * height, 8 * width * height)


# TIFF 6.0

_WIDTH, _HEIGHT, _BITS, _SAMPLES = 256, 257, 258, 277
_STRIP_OFFSETS, _STRIP_ROWS = 273, 278
_TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS = 322, 323, 324
_INTEGERS = {3: "H", 4: "I", 8: "H", 9: "I", 13: "I"}


def _estimate_tiff(data: bytes) -> Cost:
    tags, strips = _read_tags(data)
    width, height = tags[_WIDTH], tags[_HEIGHT]
    columns = tags.get(_TILE_WIDTH, width)
    rows = tags.get(_TILE_HEIGHT, min(tags.get(_STRIP_ROWS, height), height))
    segments = ceil(width / columns) * ceil(height / rows)
    _check_chunks(max(strips, segments), data)
    samples = tags.get(_SAMPLES, 1) * ceil(tags.get(_BITS, 1) / 8)
    # Pillow's image, and the strip or tile with a copy of it.
    return Cost(width * height, 4 * width * height + 2 * columns * rows * max(samples, 4))


def _read_tags(data: bytes) -> tuple[dict[int, int], int]:
    """Return the first integer of each tag in the first directory, and the number of strips."""
    order = "<" if data.startswith(b"II") else ">"
    (place,) = struct.unpack_from(order + "I", data, 4)
    (entries,) = struct.unpack_from(order + "H", data, place)
    _check_chunks(entries, data)
    tags: dict[int, int] = {}
    strips = 0
    for entry in range(place + 2, place + 2 + 12 * entries, 12):
        tag, kind, count = struct.unpack_from(order + "HHI", data, entry)
        if tag in (_STRIP_OFFSETS, _TILE_OFFSETS):
            strips = max(strips, count)
        elif kind in _INTEGERS:
            code = order + _INTEGERS[kind]
            inside = count * struct.calcsize(code) <= 4
            at = entry + 8 if inside else struct.unpack_from(order + "I", data, entry + 8)[0]
            # The larger one of a tag that is there twice.
            tags[tag] = max(tags.get(tag, 0), *struct.unpack_from(code, data, at))
    return tags, strips


# PNM (Netpbm)

_HEADER_BYTES = 1 << 16
_PNM_HEADER = re.compile(rb"P([1-6])\s+(\d{1,9})\s+(\d{1,9})\s+(\d{1,5})?")
_SLOW_SAMPLES, _SLOW_BYTES, _COMMENTS = 1 << 21, 1 << 23, 100
"""Of a file that Pillow reads in Python, at about 1 µs per sample."""


def _estimate_pnm(data: bytes) -> Cost:
    # A comment may stand anywhere, even inside of a number.
    header = _PNM_HEADER.match(re.sub(rb"#[^\r\n]*[\r\n]", b"", data[:_HEADER_BYTES]))
    if header is None:
        raise ImageError("damaged: a PNM without a size")
    kind, pixels = header[1], int(header[2]) * int(header[3])
    fast = kind == b"4" or (kind in b"56" and header[4] == b"255")
    fast |= kind == b"5" and header[4] == b"65535"
    samples = pixels * (3 if kind in b"36" else 1)
    if not fast and (
        samples > _SLOW_SAMPLES or len(data) > _SLOW_BYTES or data.count(b"#") > _COMMENTS
    ):
        raise ImageError(
            f"a PNM image of {samples:,} values as text or with an unusual maximum; the limit is "
            f"{_SLOW_SAMPLES:,}"
        )
    return Cost(pixels, 16 * pixels)


_FORMATS: dict[bytes, Callable[[bytes], Cost]] = {
    rb"\xff\xd8\xff": _estimate_jpeg,
    rb"\x89PNG\r\n\x1a\n": _estimate_png,
    rb"RIFF....WEBP": _estimate_webp,
    rb"BM": _estimate_bmp,
    rb"GIF8[79]a": _estimate_gif,
    rb"P[1-6]\s": _estimate_pnm,
    rb"II\x2a\x00|MM\x00\x2a|MM\x2a\x00|II\x00\x2a": _estimate_tiff,
}
"""By signature. Pillow tells formats apart by the same ones."""
