"""Images in any format and mode become the same pixels; other files are refused cheaply."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.bomb import bomb
from vggnet.data.decode import Header, decode_image, load_image, read_header
from vggnet.data.files import open_file
from vggnet.data.image import fit_image
from vggnet.errors import ImageError

GREY = np.arange(0, 240, dtype=np.uint8).reshape(12, 20)


def encode(image: Image.Image, kind: str = "PNG", **how: object) -> bytes:
    """Return a file's bytes."""
    file = io.BytesIO()
    image.save(file, kind, **how)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "BMP", "WEBP", "JPEG", "MPO", "GIF", "TIFF", "PPM"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_formats(kind: str, mode: str) -> None:
    """Each format, grey and colour, gives the same pixels; lossy ones nearly."""
    lossy = kind in ("JPEG", "MPO")
    how = {"lossless": True} if kind == "WEBP" else {"quality": 98} if lossy else {}
    pixels = decode_image(encode(Image.fromarray(GREY).convert(mode), kind, **how))
    assert pixels.shape in ((12, 20), (12, 20, 3))
    most = 6 if lossy else 0
    assert np.abs(np.atleast_3d(pixels).astype(int) - GREY[..., np.newaxis]).max() <= most


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_keep_their_brightness(kind: str) -> None:
    """A 16-bit grey image is scaled, not clipped."""
    data = encode(Image.fromarray(GREY.astype(np.uint16) * 257), kind)
    assert np.array_equal(decode_image(data), GREY)


def test_fractions_are_scaled() -> None:
    """A TIFF of fractions from 0 to 1 is as bright as it should be; one of NaN is refused."""
    fractions = Image.fromarray(GREY.astype(np.float32) / 255)
    assert np.array_equal(decode_image(encode(fractions, "TIFF")), GREY)
    with pytest.raises(ImageError, match="values"):
        decode_image(encode(Image.fromarray(np.full((4, 4), np.nan, np.float32)), "TIFF"))


def test_one_bit_and_palette() -> None:
    """Black and white by one bit, and colours by number."""
    bits = Image.fromarray(GREY > 100)
    assert np.array_equal(decode_image(encode(bits)) == 255, GREY > 100)
    colours = np.zeros((4, 4, 3), np.uint8)
    colours[:, 2:] = (200, 10, 30)
    palette = Image.fromarray(colours).quantize(2)
    assert np.array_equal(decode_image(encode(palette)), colours)


def test_print_colours() -> None:
    """A CMYK JPEG is turned to red, green and blue."""
    data = encode(Image.new("CMYK", (8, 8), (0, 0, 0, 255)), "JPEG")
    assert decode_image(data).max() < 10


@pytest.mark.parametrize("color", [(90, 90, 90), (90, 91, 90)])
def test_opaque_images_stay_as_they_are(color: tuple[int, int, int]) -> None:
    """An RGBA image without a transparent pixel has the pixels of its RGB, or its grey."""
    image = Image.new("RGB", (6, 4), "white")
    image.putpixel((2, 1), color)
    pixels = np.asarray(image.convert("L") if len(set(color)) == 1 else image)
    assert np.array_equal(decode_image(encode(image.convert("RGBA"))), pixels)


@pytest.mark.parametrize(("ink", "paper"), [(0, 255), (255, 0)])
def test_transparency_becomes_paper(ink: int, paper: int) -> None:
    """Behind dark strokes it is white, behind light ones black, so that both can be seen."""
    pixels = np.zeros((10, 10, 4), np.uint8)
    pixels[3:6, 3:6] = (ink, ink, ink, 255)
    found = decode_image(encode(Image.fromarray(pixels)))
    assert (found[3:6, 3:6] == ink).all()
    assert (found[7:] == paper).all()


def test_a_cut_out_sheet_lies_on_white() -> None:
    """Round corners of a light image, and what is around it, do not become a black frame."""
    pixels = np.zeros((20, 20, 4), np.uint8)
    pixels[2:18, 2:18] = (250, 250, 250, 255)
    pixels[8:12, 8:12, :3] = 0
    assert decode_image(encode(Image.fromarray(pixels)))[0].min() == 255


def test_photos_are_turned_upright() -> None:
    """EXIF's orientation is obeyed."""
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    data = encode(Image.fromarray(GREY), "JPEG", exif=exif, quality=98)
    turned = decode_image(data).astype(int)
    assert np.abs(turned - np.rot90(GREY, -1)).max() < 8


@pytest.mark.parametrize("kind", ["WEBP", "GIF", "TIFF", "PNG"])
def test_of_several_frames_the_first(kind: str) -> None:
    """Of an animation, or several pages, the first image is used."""
    first, second = Image.new("RGB", (6, 6), "white"), Image.new("RGB", (6, 6), "black")
    data = encode(first, kind, save_all=True, append_images=[second], lossless=True)
    assert (decode_image(data) == 255).all()


@pytest.mark.skipif(sys.platform != "linux", reason="the most memory is read from /proc")
@pytest.mark.parametrize("side", [13_000, 40_000])
def test_a_bomb_costs_no_memory(side: int, tmp_path: Path) -> None:
    """Its header is enough to refuse it, above and below where Pillow itself objects."""
    path = tmp_path / "bomb.png"
    path.write_bytes(
        bomb(13_000) if side == 13_000 else bomb(16)[:16] + struct.pack(">II", side, side)
    )
    # In a process of its own, for Pillow's memory is not Python's.
    program = """
import sys
from pathlib import Path
from vggnet.data.decode import decode_image
from vggnet.errors import ImageError
def most():
    status = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in status if line.startswith("VmHWM")).split()[1])
data = Path(sys.argv[1]).read_bytes()
before = most()
try:
    decode_image(data, max_pixels=4_000_000)
except ImageError:
    print(most() - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, path], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 20_000  # KiB; unpacked it would be 169 MB


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GIF89a",
        b"II*\0",
        b"P5 9 9 255",
        b"<svg/>",
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff",
        b"RIFF\0\0\0\0WEBP",
        b"BM",
    ],
)
def test_what_is_no_image(data: bytes) -> None:
    """One kind of error, whatever the parser raised."""
    with pytest.raises(ImageError):
        decode_image(data)


def test_a_cut_file_is_damaged() -> None:
    """Half a file is refused at every length, not shown half grey."""
    for kind in ("PNG", "JPEG", "WEBP", "BMP"):
        data = encode(Image.fromarray(GREY).convert("RGB"), kind)
        for length in range(0, len(data) * 3 // 4, 7):
            with pytest.raises(ImageError):
                decode_image(data[:length])


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_a_jpeg_s_header_is_what_pillow_says(mode: str, progressive: bool, tmp_path: Path) -> None:
    """Also where a thumbnail pushes it beyond what is read at first."""
    for extra in (b"", bytes(60_000)):
        path = tmp_path / "a.jpg"
        image = Image.new(mode, (50, 30))
        comment = b"\xff\xfe" + struct.pack(">H", len(extra) + 2) + extra
        data = encode(image, "JPEG", progressive=progressive)
        path.write_bytes(data[:2] + comment + comment + data[2:])
        header = read_header(open_file(path))
        assert header == Header(50, grey=mode == "L", deep=False, cut=False)


@pytest.mark.parametrize("side", [32, 96, 224, 500])
def test_large_jpegs_are_decoded_at_a_smaller_scale(side: int) -> None:
    """As small as the size allows that they are fitted to, which changes them little."""
    rough = np.random.default_rng(0).integers(0, 256, (9, 12, 3), np.uint8)
    photo = Image.fromarray(rough).resize((500, 375), Image.Resampling.BICUBIC)
    data = encode(photo, "JPEG", quality=95)
    decoded = decode_image(data, side=side)
    scale = max(one for one in (1, 2, 4, 8) if one * side <= 500)
    assert decoded.shape == (-(-375 // scale), -(-500 // scale), 3)
    fitted, whole = (fit_image(one, 3, side, side) for one in (decoded, decode_image(data)))
    assert abs(fitted.astype(int) - whole).mean() < 4


def test_other_formats_are_refused(tmp_path: Path) -> None:
    """An icon is an image, but of no format that is read; a folder is no image at all."""
    path = tmp_path / "a.png"
    path.write_bytes(encode(Image.fromarray(GREY), "ICO"))
    with pytest.raises(ImageError, match="not a PNG, JPEG, WebP, BMP, GIF, TIFF or PNM image"):
        load_image(open_file(path))
    with pytest.raises(ImageError):
        load_image(open_file(tmp_path))
