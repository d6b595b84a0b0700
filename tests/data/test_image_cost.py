"""What decoding costs is known before it starts, and files that cost too much are refused."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vggnet.data.image_cost import MAX_SCANS, check_cost
from vggnet.errors import ImageError

OPTIONS: dict[str, list[dict[str, Any]]] = {
    "JPEG": [
        {},
        {"progressive": True},
        {"quality": 95, "subsampling": 0},
        {"restart_marker_rows": 1},
    ],
    "PNG": [{}, {"compress_level": 0}, {"icc_profile": b"profile"}],
    "WEBP": [{}, {"lossless": True}, {"exif": b"Exif\0\0"}],
    "BMP": [{}],
    "GIF": [{}, {"comment": b"made by hand"}],
    "PPM": [{}],
    "TIFF": [{}, *({"compression": f"tiff_{one}"} for one in ("lzw", "deflate", "jpeg"))],
}

SIGNATURES = {
    *(b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"GIF89a"),
    *(b"P5 ", b"P6\n9 9#", b"RIFF0000WEBPVP8X", b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08"),
}


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    """Return an image as a file."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@st.composite
def files(draw: st.DrawFn) -> tuple[Image.Image, bytes]:
    """An image and an ordinary file of it."""
    kind = draw(st.sampled_from(sorted(OPTIONS)))
    options = draw(st.sampled_from(OPTIONS[kind]))
    width, height = draw(st.integers(1, 70)), draw(st.integers(1, 70))
    pixels = np.random.default_rng(draw(st.integers(0, 9))).integers(0, 256, (height, width, 3))
    image = Image.fromarray(pixels.astype(np.uint8)).convert(draw(st.sampled_from(["L", "RGB"])))
    return image, encode(image, kind, **options)


@given(files())
def test_ordinary_files_pass(made: tuple[Image.Image, bytes]) -> None:
    """What encoders write is accepted, with its true size and at least the memory of its pixels."""
    image, data = made
    cost = check_cost(data)
    assert cost.pixels == image.width * image.height
    assert image.width * image.height <= cost.memory < (2 << 20) + 100 * cost.pixels


@pytest.mark.filterwarnings("ignore")  # Pillow warns about broken metadata
@given(files(), st.data())
def test_changed_files_never_hide_their_size(
    made: tuple[Image.Image, bytes], data: st.DataObject
) -> None:
    """With any bytes changed the answer is a cost or an `ImageError`; Pillow finds no more."""
    file = bytearray(made[1])
    place = st.integers(0, min(len(file), 400) - 1)
    for at, value in data.draw(st.lists(st.tuples(place, st.integers(0, 255)), max_size=6)):
        file[at] = value
    changed = bytes(file[: data.draw(st.integers(0, len(file)))])
    try:
        cost = check_cost(changed)
        with Image.open(io.BytesIO(changed), formats=tuple(OPTIONS)) as image:
            assert image.width * image.height <= cost.pixels
    except ImageError:
        pass
    except (OSError, SyntaxError, ValueError, RuntimeError, Image.DecompressionBombError):
        pass  # what Pillow raises for a damaged file


@given(st.sampled_from(sorted(SIGNATURES)), st.binary(max_size=200))
def test_noise_is_refused_or_has_a_cost(signature: bytes, rest: bytes) -> None:
    """Bytes that only begin like an image raise nothing but an `ImageError`."""
    try:
        cost = check_cost(signature + rest)
    except ImageError:
        return
    assert cost.memory >= 0


def repeat_scan(times: int) -> bytes:
    """Return a progressive JPEG that holds its last scan several times."""
    data = encode(Image.new("L", (64, 64)), "JPEG", progressive=True)
    last = data.rfind(b"\xff\xda")
    return data[:last] + data[last:-2] * times + data[-2:]


def test_scans_of_a_jpeg_are_counted() -> None:
    """A JPEG with as many scans as allowed passes and is an image; with one more it is refused."""
    most = MAX_SCANS - repeat_scan(0).count(b"\xff\xda")
    with Image.open(io.BytesIO(repeat_scan(most))) as image:
        image.load()
    check_cost(repeat_scan(most))
    with pytest.raises(ImageError, match=f"{MAX_SCANS + 1} scans"):
        check_cost(repeat_scan(most + 1))


def test_scans_inside_a_segment_are_counted() -> None:
    """A segment after the first scan hides none: libjpeg may look for the next scan in it."""
    data = repeat_scan(1)
    hidden = b"\xff\xda" * 200
    comment = b"\xff\xfe" + struct.pack(">H", 2 + len(hidden)) + hidden
    with pytest.raises(ImageError, match="scans"):
        check_cost(data[:-2] + comment + data[-2:])


def test_bytes_after_an_ordinary_jpeg_do_not_count() -> None:
    """A phone appends a film to a photo: a baseline JPEG ends with its only scan."""
    check_cost(encode(Image.new("RGB", (64, 64)), "JPEG") + b"\xff\xda" * 1000)


def with_chunks(kind: str, count: int) -> bytes:
    """Return a file with some chunks, each as small as the format allows."""
    if kind == "TIFF":
        return tiff({256: 4, 257: 4, 273: (4, count)}) + bytes(4 * count)
    data = encode(Image.new("L", (4, 4)), kind)
    start, chunk = {
        "JPEG": (2, b"\xff\xfe\0\2"),
        "PNG": (33, struct.pack(">I4sI", 0, b"teXt", zlib.crc32(b"teXt"))),
        "GIF": (data.find(b","), b"!\xfe\0"),
    }[kind]
    return data[:start] + chunk * count + data[start:]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "TIFF"])
def test_chunks_are_counted(kind: str) -> None:
    """A few thousand small chunks pass, 20,000 of them are refused."""
    check_cost(with_chunks(kind, 5_000))
    with pytest.raises(ImageError, match="chunks"):
        check_cost(with_chunks(kind, 20_000))


def tiff(tags: dict[int, int | tuple[int, int]]) -> bytes:
    """Return a TIFF's first directory: a tag's value, or its type and the number of values."""
    body = b""
    for tag, value in sorted(tags.items()):
        kind, count, at = (*value, 8) if isinstance(value, tuple) else (4, 1, value)
        body += struct.pack("<HHII", tag, kind, count, at)
    return struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + body + bytes(4)


def resize(kind: str, width: int, height: int) -> bytes:
    """Return the file of a small image whose header claims another size."""
    if kind == "TIFF":
        return tiff({256: width, 257: height})
    if kind == "PPM":
        return b"P5\n# made by hand\n%d%s %d 255\n" % (width // 10, b"#\n0", height)
    if kind == "VP8X":
        sides = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
        return b"RIFF\0\0\0\0WEBPVP8X" + struct.pack("<II", 10, 0) + sides
    name, old, new = {
        "JPEG": ("JPEG", ">HH", (height, width)),
        "PNG": ("PNG", ">II", (width, height)),
        "BMP": ("BMP", "<ii", (width, -height)),
        "GIF": ("GIF", "<HH", (width, height)),
        "VP8": ("WEBP", "<HH", (width, height)),
    }[kind]
    data = encode(Image.new("L", (50, 50)), name)
    return data.replace(struct.pack(old, 50, 50), struct.pack(old, *new), 1)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "GIF", "VP8", "VP8X", "TIFF", "PPM"])
def test_memory_is_known_from_the_header(kind: str) -> None:
    """A claimed size of 16,000 × 12,000 is 192 million pixels in each format."""
    data = resize(kind, 16_000, 12_000)
    assert check_cost(data, max_memory=1 << 40).pixels == 192_000_000
    with pytest.raises(ImageError, match=r"192,000,000 pixels takes .* MiB of memory"):
        check_cost(data, max_memory=64 << 20)


def test_a_large_tile_of_a_small_image_is_refused() -> None:
    """A TIFF of one pixel in a tile of 60,000 × 60,000 needs the memory of the tile."""
    with pytest.raises(ImageError, match="MiB of memory"):
        check_cost(tiff({256: 1, 257: 1, 322: 60_000, 323: 60_000}))


def test_a_progressive_jpeg_keeps_all_coefficients() -> None:
    """It needs two bytes for each sample beside its image, and an ordinary one does not."""
    image = Image.new("RGB", (640, 480))
    ordinary = check_cost(encode(image, "JPEG", subsampling=0))
    progressive = check_cost(encode(image, "JPEG", subsampling=0, progressive=True))
    assert progressive.memory - ordinary.memory == 2 * 3 * 640 * 480


@pytest.mark.parametrize("kind", ["GIF", "WEBP"])
def test_an_animation_costs_its_first_frame(kind: str) -> None:
    """Twenty frames cost what one does, for only the first is decoded."""
    frames = [Image.new("L", (40, 30), 12 * shade) for shade in range(20)]
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:])
    with Image.open(io.BytesIO(data)) as image:
        assert image.n_frames == 20  # type: ignore[attr-defined]
    assert check_cost(data) == check_cost(encode(frames[0], kind))
