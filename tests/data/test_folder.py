"""Folders of images: read in any size and kind, split, and refused with a clear message."""

from __future__ import annotations

import contextlib
import csv
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

from conftest import Outcome, Start
from vggnet.config import DataConfig
from vggnet.data.collection import Collection, Request
from vggnet.data.files import walk_folder
from vggnet.data.matching import TrainedOn, load_to_evaluate
from vggnet.data.sources import load_collection
from vggnet.data.storage import load_configured, load_dataset
from vggnet.errors import DataError, VggnetError


def write(folder: Path, counts: dict[str, int], size: tuple[int, int] = (12, 12)) -> Path:
    """Write grey noise, `counts` images of each class."""
    generator = np.random.default_rng(0)
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = generator.integers(0, 256, size[::-1], np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number:03}.png")
    return folder


def read(path: Path, **wanted: int) -> Collection:
    """Read all images of a folder."""
    return load_collection(path, Request(**wanted))


def test_a_sixth_is_held_out_by_a_fixed_seed(tmp_path: Path) -> None:
    """Every image is in one split, each class is split 5 to 1, and the same way again."""
    folder = write(tmp_path / "pets", {"cat": 60, "dog": 30})
    found, again = load_dataset(folder), load_dataset(str(folder))
    assert (found.name, found.classes, found.shape) == ("pets", ("cat", "dog"), (1, 12, 12))
    assert np.bincount(found.train.labels).tolist() == [50, 25]
    assert np.bincount(found.test.labels).tolist() == [10, 5]
    images = [*found.train.images, *found.test.images]
    assert len({image.tobytes() for image in images}) == 90
    assert again.sha256 == found.sha256
    assert (again.test.images == found.test.images).all()
    assert not found.warnings


def test_the_hash_is_that_of_version_0_1(tmp_path: Path) -> None:
    """A run on a folder that version 0.1 began can be resumed: split and hash are the same."""
    for name, count in (("cat", 5), ("dog", 7)):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for number in range(count):
            pixels = np.full((8, 8), 10 * number + count, np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pets" / name / f"{number}.png")
    expected = "016acc021988d544bdc1a94ec7b1810510e7ddaca0c342235a9143829c9758ab"
    assert load_dataset(tmp_path / "pets").sha256 == expected


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(
    "splits", ["train test", "Train Test", "Training Testing", "training_ test"]
)
def test_splits_under_common_names_are_kept(tmp_path: Path, splits: str, zipped: bool) -> None:
    """Train and training, test and testing, in any case: nothing is held out."""
    train, test = splits.replace("_", "").split()
    folder = tmp_path / "pets"
    write(folder / train, {"a": 4, "b": 5})
    write(folder / test, {"a": 3, "b": 2})
    if zipped:
        folder = Path(shutil.make_archive(str(tmp_path / "saved"), "zip", tmp_path, "pets"))
    found = load_dataset(folder)
    assert np.bincount(found.train.labels).tolist() == [4, 5]
    assert np.bincount(found.test.labels).tolist() == [3, 2]
    assert found.validation is None


@pytest.mark.parametrize("name", ["val", "valid", "Validation"])
def test_a_validation_split_is_used_for_validation(tmp_path: Path, name: str) -> None:
    """It is neither trained nor tested on; its images are part of the hash."""
    for split in ("train", name, "test"):
        write(tmp_path / split, {"a": 4, "b": 5})
    found = load_dataset(tmp_path)
    assert found.validation is not None
    assert np.bincount(found.validation.labels).tolist() == [4, 5]
    assert len(found.train) == len(found.test) == 9
    changed = tmp_path / name / "a" / "000.png"
    Image.new("L", (12, 12)).save(changed)
    assert load_dataset(tmp_path).sha256 != found.sha256


def test_a_validation_split_without_a_test_split_is_the_test_set(tmp_path: Path) -> None:
    """ImageNet's layout, train and val: the warning says so."""
    write(tmp_path / "train", {"a": 4, "b": 5})
    write(tmp_path / "val", {"a": 3, "b": 2})
    found = load_dataset(tmp_path)
    assert (len(found.train), len(found.test), found.validation) == (9, 5, None)
    assert "no test split: its validation split is the test set" in found.warnings[0]


def test_a_test_split_without_classes_is_not_used(tmp_path: Path) -> None:
    """Kaggle's test images have no labels: a sixth is held out, and the warning says so."""
    write(tmp_path / "train", {"a": 12, "b": 12})
    write(tmp_path, {"test": 3})
    found = load_dataset(tmp_path)
    assert (len(found.train), len(found.test)) == (20, 4)
    assert "test has no class folders, so it is not used as the test set" in found.warnings[0]


def test_two_folders_for_one_split_are_refused(tmp_path: Path) -> None:
    """Nobody can know which of train and training is meant."""
    for split in ("train", "Training", "test"):
        write(tmp_path / split, {"a": 2, "b": 2})
    with pytest.raises(DataError, match="several folders for one split: Training, test, train"):
        load_dataset(tmp_path)


@pytest.mark.parametrize("zipped", [False, True])
def test_unnamed_splits_are_no_classes(tmp_path: Path, zipped: bool) -> None:
    """Folders that hold the same classes are refused, in whatever they are wrapped.

    This is Kaggle's MNIST as JPG, which version 0.1 trained on as three classes.
    """
    folder = tmp_path / "archive"
    for name, count in (("trainingSet", 4), ("trainingSample", 2)):
        write(folder / name / name, {"0": count, "1": count, "10": count})
    write(folder / "testSet", {"testSet": 3})
    if zipped:
        folder = Path(shutil.make_archive(str(tmp_path / "saved"), "zip", tmp_path, "archive"))
    with pytest.raises(DataError, match=r"hold folders of the same names \(0, 1, 10\), so it is"):
        load_dataset(folder)
    if not zipped:
        assert load_dataset(folder / "trainingSet").classes == ("0", "1", "10")


def test_a_single_wrapping_folder_is_entered(tmp_path: Path) -> None:
    """As archives are unpacked: one folder around the splits, or two."""
    for split in ("train", "test"):
        write(tmp_path / "wrapped" / "mnist_png" / split, {"3": 3, "7": 3})
    assert load_dataset(tmp_path / "wrapped").classes == ("3", "7")
    assert load_dataset(tmp_path).classes == ("3", "7")


def test_folders_within_a_class_are_read(tmp_path: Path) -> None:
    """A class may be sorted further, if other classes are not sorted in the same way."""
    write(tmp_path / "cat", {"2025": 3, "2026": 3})
    write(tmp_path / "dog", {"2025": 3, "barking": 3})
    assert load_dataset(tmp_path).classes == ("cat", "dog")


def test_classes_that_each_hold_one_folder(tmp_path: Path) -> None:
    """As in Tiny ImageNet, where each class has `images`: the outer folders are the classes."""
    for name in ("n01", "n02", "n03"):
        write(tmp_path / name, {"images": 3, f"more of {name}": 2})
    assert load_dataset(tmp_path).classes == ("n01", "n02", "n03")


@pytest.mark.parametrize(("outer", "inner"), [(2, 4), (4, 2)])
def test_folders_of_the_same_names_are_found(tmp_path: Path, outer: int, inner: int) -> None:
    """Whether the outer or the inner folders are more, the message names two that are alike."""
    for number in range(outer):
        write(tmp_path / f"part {number}", {f"class {at}": 1 for at in range(inner)})
    with pytest.raises(DataError, match=r"^part 0 and part 1 .* names \(class 0, class 1"):
        load_dataset(tmp_path)


def test_which_of_two_levels_are_the_classes(vggnet: Callable[..., Outcome]) -> None:
    """Classes in shards and groups of classes look alike: the option says which, here and later.

    Where only one level can be the classes, the option changes nothing.
    """
    for name in ("cat", "dog"):
        write(Path("pets", name), {"00": 6, "01": 6, "02": 1})
    with pytest.raises(DataError, match="the classes, pass --class-folders outer; if the inner"):
        load_dataset("pets")
    outer = load_dataset("pets", class_folders="outer")
    assert outer.classes == ("cat", "dog")
    assert len(outer.train) + len(outer.test) == 26
    inner = load_dataset("pets", class_folders="inner")
    assert inner.classes == ("00", "01", "02")
    assert np.bincount(np.r_[inner.train.labels, inner.test.labels]).tolist() == [12, 12, 2]
    for choice in ("outer", "inner"):
        assert load_dataset("pets/cat", class_folders=choice).classes == ("00", "01", "02")
    small = ("--stages", "8/8", "--hidden", 8, "-b", 8, "--epochs", 1, "--threads", 1)
    how = ("--dataset", "pets", "--class-folders", "outer", "-o", "m.pth")
    assert vggnet("train", *how, *small).code == 0
    done = vggnet("evaluate", "m.pth")
    assert (done.code, "held-out sixth" in done.out) == (0, True), done.err


def test_classes_are_in_natural_order(tmp_path: Path) -> None:
    """1, 2, 10 and not 1, 10, 2."""
    folder = write(tmp_path, dict.fromkeys(("10", "9", "1", "a10", "a9", "²"), 2))
    assert load_dataset(folder).classes == ("1", "9", "10", "a9", "a10", "²")


def test_models_of_version_0_1_keep_their_order_of_classes(tmp_path: Path) -> None:
    """They have 1, 10, 2: the folder is recognized by its hash, and its test set is held out."""
    folder = write(tmp_path / "digits", {"1": 12, "2": 12, "10": 12})
    natural = load_dataset(folder)
    by_name = load_collection(folder, Request(class_order=("1", "10", "2")))
    sha256 = by_name.digest.sha256
    assert sha256 != natural.sha256
    assert load_configured(DataConfig(dataset=str(folder)), sha256).classes == ("1", "10", "2")
    assert load_configured(DataConfig(dataset=str(folder)), "other").classes == ("1", "2", "10")
    trained_on = TrainedOn(("1", "10", "2"), (1, 12, 12), str(folder), sha256)
    found, warnings = load_to_evaluate(str(folder), trained_on)
    assert (len(found), warnings) == (6, ())


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
    assert done.code in (1, 2)
    assert re.search(r"the name \S*caf\\xe9 is not valid UTF-8|must be valid Unicode", done.err)
    assert not Path("runs").exists()


@pytest.mark.parametrize("change", ["pixel", "name", "move"])
def test_the_hash_covers_pixels_names_and_classes(tmp_path: Path, change: str) -> None:
    """A changed pixel, another class name, or an image in another class gives another hash."""
    folder = write(tmp_path / "pets", {"cat": 6, "dog": 6})
    before = load_dataset(folder).sha256
    if change == "pixel":
        with Image.open(folder / "cat" / "000.png") as image:
            image.putpixel((0, 0), 255 - image.getpixel((0, 0)))  # type: ignore[operator]
            image.save(folder / "cat" / "000.png")
    elif change == "name":
        (folder / "cat").rename(folder / "cow")
    else:
        (folder / "cat" / "000.png").rename(folder / "dog" / "999.png")
    assert load_dataset(folder).sha256 != before


def test_any_size_is_fitted_without_distortion(tmp_path: Path) -> None:
    """A wide image is a band across the network's image, on its edges' own colour."""
    for name, size in (("a", (60, 30)), ("b", (30, 90))):
        (tmp_path / name).mkdir()
        for number in range(2):
            image = Image.new("L", size, 40)
            image.paste(255, (9, 9, size[0] - 9, size[1] - 9))
            image.save(tmp_path / name / f"{number}.png")
    wide, tall = read(tmp_path, image_size=20).images[:2, 0]
    assert (wide[9:11, 4:16] > 230).all()
    assert (abs(wide[:6].astype(int) - 40) < 3).all()
    assert (abs(wide[14:].astype(int) - 40) < 3).all()
    assert (tall[4:16, 9:11] > 200).all()
    assert (abs(tall[:, :6].astype(int) - 40) < 3).all()
    assert (abs(tall[:, 14:].astype(int) - 40) < 3).all()
    assert read(tmp_path).images.shape[1:] == (1, 32, 32)


def test_kinds_of_images(tmp_path: Path) -> None:
    """One colour image makes all colour, transparency becomes white, EXIF turns upright."""
    (tmp_path / "a").mkdir()
    clear = np.zeros((8, 8, 4), np.uint8)
    clear[:, :4] = (255, 0, 0, 255)
    Image.fromarray(clear).save(tmp_path / "a" / "0.png")
    turned = Image.fromarray(np.repeat([0, 255], 32).astype(np.uint8).reshape(8, 8))
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    turned.save(tmp_path / "a" / "2.jpg", quality=100, exif=exif)
    found = read(tmp_path)
    assert found.images.shape == (2, 3, 8, 8)
    red, turned_back = found.images[np.argsort(found.names)]
    assert (red[0] == 255).all()
    assert not red[1:, :, :4].any()
    assert (red[1:, :, 4:] == 255).all()
    assert (turned_back[:, :4] > 200).all()
    assert (turned_back[:, 4:] < 50).all()
    assert read(tmp_path, channels=1).images.shape == (2, 1, 8, 8)


@pytest.mark.parametrize(("bits", "highest"), [(8, 255), (10, 943), (12, 3_000), (16, 60_000)])
def test_one_bit_depth_counts_for_a_whole_folder(tmp_path: Path, bits: int, highest: int) -> None:
    """10 and 12 bits are often stored in 16: the largest value of all images decides.

    Version 0.1 decided for each image, so that one pixel of 256 made an image black.
    """
    for name, value in (("dark", highest // 3), ("light", highest)):
        (tmp_path / name).mkdir()
        for number in range(2):
            pixels = np.full((8, 8), value, np.uint16)
            Image.fromarray(pixels).save(tmp_path / name / f"{number}.png")
    found = load_dataset(tmp_path)
    expected = [round(value * 255 / (2**bits - 1)) for value in (highest // 3, highest)]
    assert found.train.images[:, 0, 0, 0].tolist() == expected
    assert found.bit_depth == bits
    assert f"{2**bits - 1:,} counts as white; choose with --bit-depth" in found.warnings[0]
    chosen = load_dataset(tmp_path, bit_depth=16)
    assert chosen.train.images[1, 0, 0, 0] == round(highest / 257)
    assert "--bit-depth" not in " ".join(chosen.warnings)


def test_what_is_no_image_is_left_out_and_named(tmp_path: Path) -> None:
    """By content, in one warning: system files, notes, and files of unknown kind."""
    folder = write(tmp_path / "pets", {"cat": 6, "dog": 6})
    for name in ("desktop.ini", "labels.txt", "._x.png", "cat/notes", "dog/Thumbs.db"):
        (folder / name).write_text("no image")
    (folder / ".ipynb_checkpoints").mkdir()
    (folder / ".ipynb_checkpoints" / "a.png").write_bytes(b"")
    (folder / "cat" / "000.png").rename(folder / "cat" / "no_suffix")
    found = load_dataset(folder)
    assert len(found.train) + len(found.test) == 12
    assert found.warnings == (
        f"6 files in {folder} are not images and are left out: ._x.png, .ipynb_checkpoints, "
        "cat/notes, desktop.ini, dog/Thumbs.db, labels.txt",
    )


def test_unreadable_images_are_all_listed(tmp_path: Path) -> None:
    """The error names each with its reason; with skip_bad the others are read."""
    folder = write(tmp_path / "pets", {"cat": 12, "dog": 12})
    (folder / "cat" / "notes.png").write_text("no image")
    whole = (folder / "dog" / "003.png").read_bytes()
    (folder / "dog" / "003.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"2 of 25 files in .*pets cannot be read") as caught:
        load_dataset(folder)
    assert "cat/notes.png (not a PNG, JPEG" in str(caught.value)
    assert "dog/003.png (damaged: image file is truncated" in str(caught.value)
    found = load_dataset(folder, skip_bad=True)
    assert len(found.train) + len(found.test) == 23
    assert "they were left out" in found.warnings[0]


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pipes among files")
def test_pipes_devices_and_links_cost_one_file_each(tmp_path: Path) -> None:
    """None of them is waited for; a link to a folder above is not entered."""
    folder = write(tmp_path / "pets", {"cat": 12, "dog": 12})
    os.mkfifo(folder / "cat" / "pipe.png")
    for number, target in enumerate(("/dev/zero", "/dev/stdin", "/nowhere", "loop.png")):
        (folder / "cat" / f"{number}.png").symlink_to(target)
    (folder / "cat" / "loop.png").symlink_to("loop.png")
    (folder / "dog" / "above").symlink_to("..")
    with pytest.raises(DataError, match=r"6 of 30 files in .* cat/pipe.png \(not a regular file"):
        load_dataset(folder)
    found = load_dataset(folder, skip_bad=True)
    assert len(found.train) + len(found.test) == 24
    assert "dog/above (a second way to the same folder)" in " ".join(found.warnings)


@pytest.mark.skipif(not os.path.ismount("/proc"), reason="only Linux shows processes as files")
def test_virtual_file_systems_are_not_searched(tmp_path: Path) -> None:
    """They are refused at once, and left out where a link leads to one."""
    with pytest.raises(DataError, match="/proc shows the system's processes or devices"):
        load_collection(Path("/proc"), Request())
    (tmp_path / "link").symlink_to("/proc/self")
    tree = walk_folder(tmp_path)
    assert (tree.files, tree.folders) == ((), ())
    assert tree.hidden == ("link (processes or devices of the system)",)


def test_a_thousand_levels_of_folders(tmp_path: Path) -> None:
    """Depth is no problem: the walk does not recurse."""
    write(tmp_path / "pets", {"cat": 6, "dog": 6})
    here = os.open(tmp_path / "pets" / "dog", os.O_RDONLY)
    try:
        for _ in range(1_000):
            os.mkdir("d", dir_fd=here)
            here, above = os.open("d", os.O_RDONLY, dir_fd=here), here
            os.close(above)
    finally:
        os.close(here)
    assert load_dataset(tmp_path / "pets").classes == ("cat", "dog")
    subprocess.run(["rm", "-r", tmp_path / "pets"], check=True)  # Python's own rmtree recurses


TOO_LARGE = """
import resource, sys
from pathlib import Path
from vggnet.data.storage import load_configured, load_dataset
from vggnet.errors import DataError
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20), resource.RLIM_INFINITY))
try:
    load_dataset(sys.argv[1], image_size=1024, cache=False)
except DataError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is read from /proc")
def test_images_that_do_not_fit_the_memory_are_refused(tmp_path: Path) -> None:
    """Before a pixel is decoded, the bytes needed are compared with the bytes free."""
    folder = write(tmp_path, {"a": 40, "b": 40})
    command = [sys.executable, "-c", TOO_LARGE, folder]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "80 images × 1 × 1024 × 1024 bytes needs 0.08 GiB of memory, and 0.0" in done.stdout


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
    [("above", 0), ("above/pets", 0), ("above/pets", 0o111), ("above/pets/cat", 0)],
)
def test_a_folder_that_may_not_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, locked: str, mode: int
) -> None:
    """The dataset, the folder above it, or a class: the message says which, and why."""
    write(tmp_path / "above" / "pets", {"cat": 2, "dog": 2})
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)  # only root may enter the folders above
    Path(locked).chmod(mode)
    with (
        without_privilege(),
        pytest.raises(DataError, match=rf"cannot read {locked}\S*: Permission denied"),
    ):
        load_dataset("above/pets")
    Path(locked).chmod(0o755)


@pytest.mark.parametrize("suffix", ["", ".zip"])
def test_a_name_too_long_for_the_disk_is_no_folder(suffix: str) -> None:
    """The message repeats it."""
    with pytest.raises(VggnetError, match=300 * "x"):
        load_dataset(300 * "x" + suffix)


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
@pytest.mark.parametrize("terminal", [True, False])
def test_a_bar_shows_the_progress(start: Start, tmp_path: Path, terminal: bool) -> None:
    """It is on a terminal only; a pipe's other end sees nothing."""
    write(tmp_path / "some", {"a": 30, "b": 30})
    program = "import sys, vggnet; vggnet.load_dataset(sys.argv[1])"
    ours, theirs = os.openpty() if terminal else os.pipe()
    command = (sys.executable, "-c", program, tmp_path / "some")
    child = start(*command, stderr=theirs, env={"TERM": "xterm"})
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # how Linux ends a terminal that nobody writes to any more
        while part := os.read(ours, 4096):
            shown += part
    os.close(ours)
    assert child.wait() == 0
    assert (b"reading images" in shown) if terminal else shown == b""


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ({}, "has no images and no data files"),
        ({"cat": 0}, "has no images and no data files"),
        ({"cat": 9}, "only one class, cat"),
        ({"cat": 1, "dog": 1}, "a class needs at least two"),
    ],
)
def test_hopeless_folders_are_refused(tmp_path: Path, counts: dict[str, int], words: str) -> None:
    """Nothing, one class, and one image in each class have a message each."""
    with pytest.raises(DataError, match=words):
        load_dataset(write(tmp_path, counts))


def test_images_without_classes_or_a_table_are_refused(tmp_path: Path) -> None:
    """The message says what to add."""
    folder = write(tmp_path, {"flat": 4}) / "flat"
    with pytest.raises(DataError, match=r"make a folder for each class, or a labels\.csv"):
        load_dataset(folder)


@pytest.mark.parametrize("name", ["metadata.csv", "labels.csv"])
def test_a_table_labels_images_in_one_folder(tmp_path: Path, name: str) -> None:
    """file_name and label, as in Hugging Face's image folders; others are left out, named."""
    folder = write(tmp_path, {"flat": 13}) / "flat"
    with (folder / name).open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(("file_name", "label"))
        table.writerows((f"{at:03}.png", "a, b" if at % 2 else "c") for at in range(12))
    found = load_dataset(folder)
    assert found.classes == ("a, b", "c")
    assert np.bincount(found.train.labels).tolist() == [5, 5]
    assert found.warnings == (f"1 files in {folder} have no label and are left out: 012.png",)


def test_a_table_that_lists_missing_images_is_refused(tmp_path: Path) -> None:
    """Each is named, and skip_bad leaves them out."""
    folder = write(tmp_path, {"flat": 12}) / "flat"
    rows = "".join(f"{at:03}.png,{at % 2}\n" for at in range(12))
    (folder / "labels.csv").write_text(f"file_name,label\n{rows}gone.png,1\n../up.png,1\n")
    with pytest.raises(DataError, match=r"\.\./up.png \(not there.*gone.png \(not there"):
        load_dataset(folder)
    found = load_dataset(folder, skip_bad=True)
    assert len(found.train) + len(found.test) == 12


def test_oddities_are_warned_of(tmp_path: Path) -> None:
    """Imbalance, an empty class, a class without test images, and copies."""
    write(tmp_path / "train", {"cat": 40, "dog": 4, "emu": 0})
    write(tmp_path / "test", {"cat": 2})
    shutil.copy(tmp_path / "train" / "cat" / "007.png", tmp_path / "test" / "cat" / "9.png")
    text = " ".join(load_dataset(tmp_path).warnings)
    assert "emu in" in text
    assert "40 training images of cat and 4 of dog" in text
    assert "no test image of dog; leave out" in text
    # The noise begins with the same seed: 000 and 001 are copies as well.
    assert "3 of 3 test images are in the training set too" in text


def test_classes_of_one_split_are_warned_of_and_can_be_left_out(tmp_path: Path) -> None:
    """The warning names the option, and with it only common classes are read."""
    write(tmp_path / "train", {"a": 3, "b": 3, "c": 3})
    write(tmp_path / "test", {"a": 2, "b": 2, "d": 2})
    found = load_dataset(tmp_path)
    assert found.classes == ("a", "b", "c", "d")
    text = " ".join(found.warnings)
    assert "no training image of d; leave out classes that not every split has" in text
    assert "no test image of c; leave out classes that not every split has: --common" in text
    common = load_dataset(tmp_path, common_classes=True)
    assert common.classes == ("a", "b")
    assert (len(common.train), len(common.test)) == (6, 4)
    assert "were left out: c, d" in common.warnings[0]


DIGITS = TrainedOn(tuple("0123456789"), (1, 28, 28), "mnist")


def test_a_zip_with_a_note_beside_its_classes(tmp_path: Path) -> None:
    """A README in the packed folder is no class."""
    write(tmp_path / "pets", {"cat": 4, "dog": 4})
    (tmp_path / "pets" / "README.txt").write_text("cats and dogs")
    shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path, "pets")
    assert load_dataset(tmp_path / "packed.zip").classes == ("cat", "dog")


@pytest.mark.parametrize("zipped", [False, True])
def test_drawings_are_matched_by_name(tmp_path: Path, zipped: bool) -> None:
    """A folder with only some digits, or a zip of it, is evaluated with the model's labels."""
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


def test_the_held_out_sixth_is_recognized(tmp_path: Path) -> None:
    """A model is not evaluated on its training images, unless the folder has changed."""
    folder = write(tmp_path, {"a": 12, "b": 12})
    trained = load_dataset(folder)
    trained_on = TrainedOn(trained.classes, trained.shape, str(folder), trained.sha256)
    found, warnings = load_to_evaluate(str(folder), trained_on)
    assert (found.images == trained.test.images).all()
    assert not warnings
    (folder / "a" / "000.png").unlink()
    found, warnings = load_to_evaluate(str(folder), trained_on)
    assert len(found) == 23
    assert "has changed since the model was trained" in warnings[0]


def test_a_dataset_that_is_gone_is_asked_for() -> None:
    """The model's own folder may be on another machine."""
    trained_on = TrainedOn(("a", "b"), (1, 28, 28), "my_pictures", "")
    words = "the model was trained on my_pictures, which is not here; name it with --dataset"
    with pytest.raises(VggnetError, match=words):
        load_to_evaluate("my_pictures", trained_on)
