"""A user's own images: read whatever their size and kind, split, and refused in words."""

from __future__ import annotations

import contextlib
import gzip
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import Outcome, idx_bytes
from vggnet.data.dataset import Dataset
from vggnet.data.folder import load_folder, read_folder
from vggnet.data.matching import Learnt, load_to_evaluate
from vggnet.data.storage import load_dataset
from vggnet.errors import ConfigError, DataError, VggnetError


def write(folder: Path, counts: dict[str, int], size: tuple[int, int] = (12, 12)) -> Path:
    """Write noise in grey, `counts` images of each class."""
    generator = np.random.default_rng(0)
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = generator.integers(0, 256, size[::-1], np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number:03}.png")
    return folder


def test_a_sixth_is_held_out_by_a_fixed_seed(tmp_path: Path) -> None:
    """Every image is in one split, each class is shared 5 to 1, and again in the same way."""
    folder = write(tmp_path / "pets", {"cat": 60, "dog": 30})
    found, again = load_folder(folder), load_dataset(str(folder))
    assert (found.name, found.classes, found.shape) == ("pets", ("cat", "dog"), (1, 12, 12))
    assert np.bincount(found.train.labels).tolist() == [50, 25]
    assert np.bincount(found.test.labels).tolist() == [10, 5]
    images = [*found.train.images, *found.test.images]
    assert len({image.tobytes() for image in images}) == 90
    assert again.sha256 == found.sha256
    assert (again.test.images == found.test.images).all()
    assert not found.warnings


def test_train_and_test_folders_are_kept(tmp_path: Path) -> None:
    """Where a folder says what the test is, nothing is split."""
    write(tmp_path / "train", {"a": 4, "b": 5})
    write(tmp_path / "test", {"a": 3, "b": 2})
    found = load_folder(tmp_path)
    assert np.bincount(found.train.labels).tolist() == [4, 5]
    assert np.bincount(found.test.labels).tolist() == [3, 2]


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("splits", ["Train Test", "Training Testing", "train val", "train Test"])
def test_splits_of_other_names_are_no_classes(tmp_path: Path, splits: str, zipped: bool) -> None:
    """Nobody means to tell train from val: the error says what the folders must be called."""
    folder = tmp_path / "pets"
    one, other = splits.split()
    write(folder / one, {"cat": 3, "dog": 3, "emu": 2})
    write(folder / other, {"cat": 2, "dog": 2})
    if zipped:
        folder = Path(shutil.make_archive(str(tmp_path / "saved"), "zip", tmp_path, "pets"))
    with pytest.raises(DataError, match=r"parts of a dataset .* call the one to learn from train"):
        load_folder(folder)


def test_folders_within_a_class_are_read(tmp_path: Path) -> None:
    """A class may be sorted further, in folders of the same names as another's."""
    write(tmp_path / "cat", {"2025": 3, "2026": 3})
    write(tmp_path / "dog", {"2025": 3, "2026": 3})
    assert load_folder(tmp_path).classes == ("cat", "dog")


@pytest.mark.skipif(sys.platform != "linux", reason="such a name cannot be made")
@pytest.mark.parametrize("place", ["cat", "pets", "above"])
def test_a_name_that_is_no_text_is_refused_before_training(
    vggnet: Callable[..., Outcome], tmp_path: Path, place: str
) -> None:
    """A class, a dataset, or its path in bytes that are not UTF-8 could not be stored."""
    names = {"above": "above", "pets": "pets", "cat": "cat", place: os.fsdecode(b"caf\xe9")}
    folder = Path(names["above"], names["pets"])
    write(tmp_path / folder, {names["cat"]: 12, "dog": 12})
    done = vggnet("train", "--dataset", folder, "--epochs", 1, "--threads", 1)
    assert done.code == 1
    assert re.search(r"the name \S*caf\\xe9\S* is not valid UTF-8; rename it", done.err)
    assert not Path("runs").exists()


@pytest.mark.parametrize("change", ["pixel", "name", "move"])
def test_the_hash_covers_pixels_names_and_classes(tmp_path: Path, change: str) -> None:
    """A changed pixel, another class name, or an image in another class gives another hash."""
    folder = write(tmp_path / "pets", {"cat": 6, "dog": 6})
    before = load_folder(folder).sha256
    if change == "pixel":
        with Image.open(folder / "cat" / "000.png") as image:
            image.putpixel((0, 0), 255 - image.getpixel((0, 0)))  # type: ignore[operator]
            image.save(folder / "cat" / "000.png")
    elif change == "name":
        (folder / "cat").rename(folder / "cow")
    else:
        (folder / "cat" / "000.png").rename(folder / "dog" / "999.png")
    assert load_folder(folder).sha256 != before


def test_any_size_is_fitted_without_distortion(tmp_path: Path) -> None:
    """A wide image is a band across the network's image, on its edges' own colour."""
    for name, size in (("a", (60, 30)), ("b", (30, 90))):
        (tmp_path / name).mkdir()
        for number in range(2):
            image = Image.new("L", size, 40)
            image.paste(255, (9, 9, size[0] - 9, size[1] - 9))
            image.save(tmp_path / name / f"{number}.png")
    wide, tall = read_folder(tmp_path, image_size=20).images[:2, 0]
    assert (wide[9:11, 4:16] > 230).all()
    assert (abs(wide[:6].astype(int) - 40) < 3).all()
    assert (abs(wide[14:].astype(int) - 40) < 3).all()
    assert (tall[4:16, 9:11] > 200).all()
    assert (abs(tall[:, :6].astype(int) - 40) < 3).all()
    assert (abs(tall[:, 14:].astype(int) - 40) < 3).all()
    assert read_folder(tmp_path).images.shape[1:] == (1, 32, 32)


def test_kinds_of_images(tmp_path: Path) -> None:
    """Colour makes all colour; transparency shows white; 16 bits become 8; EXIF turns upright."""
    (tmp_path / "a").mkdir()
    clear = np.zeros((8, 8, 4), np.uint8)
    clear[:, :4] = (255, 0, 0, 255)
    Image.fromarray(clear).save(tmp_path / "a" / "0.png")
    Image.fromarray(np.full((8, 8), 0x8080, np.uint16)).save(tmp_path / "a" / "1.png")
    turned = Image.fromarray(np.repeat([0, 255], 32).astype(np.uint8).reshape(8, 8))
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    turned.save(tmp_path / "a" / "2.jpg", quality=100, exif=exif)
    found = read_folder(tmp_path)
    assert found.images.shape == (3, 3, 8, 8)
    red, grey, turned_back = found.images
    assert (red[0] == 255).all()
    assert not red[1:, :, :4].any()
    assert (red[1:, :, 4:] == 255).all()
    assert (grey == 0x80).all()
    assert (turned_back[:, :4] > 200).all()
    assert (turned_back[:, 4:] < 50).all()
    assert read_folder(tmp_path, channels=1).images.shape == (3, 1, 8, 8)


def test_unreadable_files_are_all_listed(tmp_path: Path) -> None:
    """The error names each with its reason; with skip_bad the rest is read and it is remarked."""
    folder = write(tmp_path / "pets", {"cat": 12, "dog": 12})
    (folder / "cat" / "notes.txt").write_text("no image")
    whole = (folder / "dog" / "003.png").read_bytes()
    (folder / "dog" / "003.png").write_bytes(whole[: len(whole) // 2])
    (folder / "cat" / ".DS_Store").write_bytes(b"ignored")
    with pytest.raises(DataError, match=r"2 of 25 files in .*pets cannot be read") as caught:
        load_folder(folder)
    assert "cat/notes.txt (not a PNG, JPEG, WebP or BMP image)" in str(caught.value)
    assert "dog/003.png (damaged: image file is truncated" in str(caught.value)
    found = load_folder(folder, skip_bad=True)
    assert len(found.train) + len(found.test) == 23
    assert "they were left out" in found.warnings[0]


def test_what_does_not_fit_is_refused_with_the_sum(tmp_path: Path) -> None:
    """Before a pixel is read, the bytes needed are compared with the bytes there are."""
    folder = write(tmp_path, {"a": 4, "b": 4})
    with pytest.raises(DataError, match=r"8 images × 1 × 1024 × 1024 bytes are 0\.01 GiB"):
        load_folder(folder, image_size=1024, memory=2**20)


@contextlib.contextmanager
def without_privilege() -> Iterator[None]:
    """Give up, for a while, root's right to read everything."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such modes")
@pytest.mark.parametrize(
    ("locked", "mode"),
    [("above", 0), ("above/pets", 0), ("above/pets", 0o444), ("above/pets/cat", 0)],
)
def test_a_folder_that_may_not_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, locked: str, mode: int
) -> None:
    """The dataset, what it stands in, or a class in it: the sentence says which, and why."""
    write(tmp_path / "above" / "pets", {"cat": 2, "dog": 2})
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)  # the folders above are for root alone
    Path(locked).chmod(mode)
    with (
        without_privilege(),
        pytest.raises(DataError, match=rf"cannot read {locked}\S*: Permission denied"),
    ):
        load_dataset("above/pets")
    Path(locked).chmod(0o755)


@pytest.mark.parametrize("suffix", ["", ".zip"])
def test_a_name_too_long_for_the_disk_is_no_folder(suffix: str) -> None:
    """It ends in a sentence that repeats it."""
    with pytest.raises(VggnetError, match=300 * "x"):
        load_dataset(300 * "x" + suffix)


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
@pytest.mark.parametrize("terminal", [True, False])
def test_a_bar_shows_how_far_reading_is(tmp_path: Path, terminal: bool) -> None:
    """On a terminal one sees how many images are read; a pipe's other end sees nothing."""
    write(tmp_path / "some", {"a": 30, "b": 30})
    program = (
        "import sys; from pathlib import Path; from vggnet.data.folder import read_folder; "
        "read_folder(Path(sys.argv[1]))"
    )
    ours, theirs = os.openpty() if terminal else os.pipe()
    child = subprocess.Popen(
        [sys.executable, "-c", program, tmp_path / "some"],
        stderr=theirs, env=os.environ | {"TERM": "xterm"},
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # so Linux ends a terminal that nobody writes to any more
        while part := os.read(ours, 4096):
            shown += part
    os.close(ours)
    assert child.wait() == 0
    assert (b"reading images" in shown) if terminal else shown == b""


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ({}, "must hold a folder for each class"),
        ({"cat": 0}, "must hold a folder for each class"),
        ({"cat": 9}, "one class alone, cat"),
        ({"cat": 1, "dog": 1}, "a class needs at least two"),
    ],
)
def test_hopeless_folders_are_refused(tmp_path: Path, counts: dict[str, int], words: str) -> None:
    """Nothing, one class, and one image a class are each said to be that."""
    with pytest.raises(DataError, match=words):
        load_folder(write(tmp_path, counts))


def test_oddities_are_remarked(tmp_path: Path) -> None:
    """Imbalance, an empty class, a class without test images, and copies are each told."""
    write(tmp_path / "train", {"cat": 40, "dog": 4, "emu": 0})
    write(tmp_path / "test", {"cat": 2})
    shutil.copy(tmp_path / "train" / "cat" / "007.png", tmp_path / "test" / "cat" / "9.png")
    text = " ".join(load_folder(tmp_path).warnings)
    assert "class emu of" in text
    assert "40 training images of cat and 4 of dog" in text
    assert "no test image of dog" in text
    # The noise begins with the same seed: 000 and 001 are copies as well.
    assert "3 of 3 test images are in the training set too" in text


def test_test_classes_must_be_trained(tmp_path: Path) -> None:
    """A class that only the test has is an error."""
    write(tmp_path / "train", {"a": 3, "b": 3})
    write(tmp_path / "test", {"a": 2, "c": 2})
    with pytest.raises(DataError, match="test images of c and none to train on"):
        load_folder(tmp_path)


def test_idx_files_are_read(tmp_path: Path, mnist: Dataset) -> None:
    """Four IDX files in a folder are a dataset, raw or gzipped."""
    for stem, count in (("train", 50), ("t10k", 20)):
        images, labels = mnist.train.images[:count, 0], mnist.train.labels[:count]
        (tmp_path / f"my-{stem}-images-idx3-ubyte").write_bytes(idx_bytes(images))
        packed = gzip.compress(idx_bytes(labels))
        (tmp_path / f"my-{stem}-labels-idx1-ubyte.gz").write_bytes(packed)
    found = load_folder(tmp_path)
    assert (found.train.images == mnist.train.images[:50]).all()
    assert (found.test.labels == mnist.train.labels[:20]).all()
    assert found.classes == tuple("0123456789")
    with pytest.raises(ConfigError, match="28 × 28 pixels, which are not fitted to 64"):
        load_folder(tmp_path, image_size=64)
    (tmp_path / "my-t10k-images-idx3-ubyte").unlink()
    with pytest.raises(DataError, match="no t10k-images-idx3-ubyte"):
        load_folder(tmp_path)


DIGITS = Learnt(tuple("0123456789"), (1, 28, 28), "mnist")


def test_what_a_system_adds_to_idx_files_is_passed_over(tmp_path: Path, mnist: Dataset) -> None:
    """A Mac's `._` files beside them, a folder around them in a zip."""
    folder = tmp_path / "digits"
    folder.mkdir()
    for stem, part in (("train", mnist.train), ("t10k", mnist.test)):
        (folder / f"{stem}-images-idx3-ubyte").write_bytes(idx_bytes(part.images[:50, 0]))
        (folder / f"{stem}-labels-idx1-ubyte").write_bytes(idx_bytes(part.labels[:50]))
        (folder / f"._{stem}-images-idx3-ubyte").write_bytes(b"Mac OS X")
    found = load_folder(folder)
    assert len(found.train) == len(found.test) == 50
    shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path, "digits")
    assert load_folder(tmp_path / "packed.zip").sha256 == found.sha256


def test_a_zip_with_a_note_beside_its_classes(tmp_path: Path) -> None:
    """A README in the folder that was packed does not make a class of it."""
    write(tmp_path / "pets", {"cat": 4, "dog": 4})
    (tmp_path / "pets" / "README.txt").write_text("cats and dogs")
    shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path, "pets")
    assert load_folder(tmp_path / "packed.zip").classes == ("cat", "dog")


@pytest.mark.parametrize("zipped", [False, True])
def test_drawings_are_matched_by_name(tmp_path: Path, zipped: bool) -> None:
    """A folder of some digits alone, or a zip of it, is evaluated whole by the model's labels."""
    folder = write(tmp_path / "drawings", {"7": 3, "2": 2}, (28, 28))
    if zipped:
        folder = Path(shutil.make_archive(str(tmp_path / "saved"), "zip", tmp_path, "drawings"))
    found, warnings = load_to_evaluate(str(folder), DIGITS)
    assert sorted(found.labels.tolist()) == [2, 2, 7, 7, 7]
    assert (found.num_classes, found.images.shape) == (10, (5, 1, 28, 28))
    assert found.source.endswith("all of it")
    assert not warnings


def test_unknown_classes_are_refused_by_name(tmp_path: Path) -> None:
    """A class that the model has never seen cannot be evaluated."""
    folder = write(tmp_path, {"7": 3, "seven": 2})
    with pytest.raises(DataError, match="does not know: seven; it knows 0, 1"):
        load_to_evaluate(str(folder), DIGITS)


def test_the_held_out_sixth_is_known_again(tmp_path: Path) -> None:
    """A model is not evaluated on what it was trained on, unless the folder has changed."""
    folder = write(tmp_path, {"a": 12, "b": 12})
    trained = load_folder(folder)
    learnt = Learnt(trained.classes, trained.shape, str(folder), trained.sha256)
    found, warnings = load_to_evaluate(str(folder), learnt)
    assert (found.images == trained.test.images).all()
    assert not warnings
    (folder / "a" / "000.png").unlink()
    found, warnings = load_to_evaluate(str(folder), learnt)
    assert len(found) == 23
    assert "has changed since the model was trained" in warnings[0]
