"""`vggnet predict` as a user sees it."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vggnet as package
from conftest import Outcome, Start, idx_bytes
from vggnet.artifacts.model_card import ModelCard
from vggnet.artifacts.model_file import save_model
from vggnet.config import ModelConfig
from vggnet.data.dataset import Dataset
from vggnet.model.vgg import build_network

Command = Callable[..., Outcome]

OLD = ModelCard(classes=tuple("0123456789"), image_shape=(1, 28, 28))
"""As a file of version 0.1 says."""


@pytest.fixture
def images(tmp_path: Path, mnist: Dataset) -> Path:
    """A folder of three digits, a blank sheet, and what is no image."""
    folder = tmp_path / "images"
    (folder / "more").mkdir(parents=True)
    for index in range(3):
        image = Image.fromarray(255 - mnist.test.images[index, 0])
        image.resize((112, 112)).save(folder / f"digit_{index}.png")
    Image.new("L", (50, 50), 255).save(folder / "more" / "blank.jpg")
    (folder / "notes.txt").write_text("no image")
    return folder


def test_a_table(vggnet: Command, digit_model: Path, images: Path) -> None:
    """A folder is read with those within it, in order; blank paper is never a digit."""
    done = vggnet("predict", digit_model, images, "--top", 2)
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert [line.split()[0] for line in lines] == [
        str(images / name)
        for name in ("digit_0.png", "digit_1.png", "digit_2.png", "more/blank.jpg")
    ]
    assert all(line.count("%") == 2 for line in lines[:3])
    assert lines[3].endswith("nothing drawn")


def test_json_and_csv_say_the_same(vggnet: Command, digit_model: Path, images: Path) -> None:
    """Path, class, probability and the likeliest classes, for machines."""
    answers = json.loads(vggnet("predict", digit_model, images, "--format", "json").out)
    keys = {"path", "class", "probability", "top", "typicality", "unlike_training"}
    assert [set(answer) for answer in answers] == [keys] * 4
    first = answers[0]
    assert first["top"][0] == {"class": first["class"], "probability": first["probability"]}
    assert len(first["top"]) == 3
    assert (answers[3]["class"], answers[3]["top"]) == (None, [])
    done = vggnet("predict", digit_model, images, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(done.out)))
    assert [row["path"] for row in rows] == [answer["path"] for answer in answers]
    assert [row["class"] or None for row in rows] == [answer["class"] for answer in answers]
    assert float(rows[0]["probability"]) == pytest.approx(first["probability"], abs=1e-6)


def test_images_that_are_no_digits_are_flagged(
    vggnet: Command, digit_model: Path, images: Path, tmp_path: Path
) -> None:
    """A grid is flagged and a digit is not, in every format; the prediction is shown anyway."""
    grid = np.full((96, 96), 255, np.uint8)
    grid[20:76:8, 20:76] = grid[20:76, 20:76:8] = 0
    Image.fromarray(grid).resize((192, 192)).save("grid.png")
    files = ("grid.png", images / "digit_0.png", images / "more")
    lines = vggnet("predict", digit_model, *files).out.splitlines()
    assert ["%" in line for line in lines] == [True, True, False]
    assert ["(unlike the training images)" in line for line in lines] == [True, False, False]
    rows = csv.DictReader(
        io.StringIO(vggnet("predict", digit_model, *files, "--format", "csv").out)
    )
    assert [row["unlike_training"] for row in rows] == ["true", "false", ""]
    answers = json.loads(vggnet("predict", digit_model, *files, "--format", "json").out)
    assert [answer["unlike_training"] for answer in answers] == [True, False, None]
    assert answers[0]["typicality"] < 0.01 < answers[1]["typicality"]
    assert "unlike" not in vggnet("predict", digit_model, *files, "--reject", "0").out
    strict = vggnet("predict", digit_model, *files, "--reject", "99.9%").out
    assert strict.count("unlike") == 2


@pytest.mark.parametrize(
    ("rate", "words"),
    [
        ("x", "write a share below 1"),
        ("1", "below 1"),
        ("nan", "below 1"),
        ("1e-9", "the lowest rate"),
    ],
)
def test_rates_that_mean_nothing_are_refused(
    vggnet: Command, digit_model: Path, images: Path, rate: str, words: str
) -> None:
    """The message says which rates there are."""
    done = vggnet("predict", digit_model, images, "--reject", rate)
    assert done.code == 2
    assert words in done.err


def test_a_file_without_statistics_says_so(vggnet: Command, images: Path, tmp_path: Path) -> None:
    """It predicts as before, and --reject is answered with a warning."""
    save_model(Path("old.pth"), build_network(ModelConfig(), 0), OLD)
    plain = vggnet("predict", "old.pth", images / "digit_0.png")
    assert (plain.code, plain.err) == (0, "")
    asked = vggnet("predict", "old.pth", images / "digit_0.png", "--reject", "2%")
    assert asked.out == plain.out
    assert "old.pth has no statistics of its training images" in asked.err


@pytest.mark.usefixtures("drawing")
def test_evidence_is_drawn(vggnet: Command, digit_model: Path, images: Path) -> None:
    """One row for each prediction, as a PNG; at most 20."""
    files = 7 * [images / f"digit_{number}.png" for number in range(3)]
    done = vggnet("predict", digit_model, *files, "--explain", "evidence.png")
    assert done.code == 0, done.err
    assert "shows the first 20 of 21 predictions" in done.err
    with Image.open("evidence.png") as drawn:
        assert drawn.height > 10 * drawn.width / 3
    refused = vggnet("predict", digit_model, files[0], "--explain", files[0])
    assert refused.code == 2
    assert "is an input of this command" in refused.err


def test_what_cannot_be_read_is_named_and_the_rest_answered(
    vggnet: Command, digit_model: Path, images: Path
) -> None:
    """Exit code 1, a sentence for each, and no answer is lost."""
    (images / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    done = vggnet("predict", digit_model, images, "missing.png")
    assert done.code == 1
    assert len(done.out.splitlines()) == 4
    assert f"vggnet: cannot read {images / 'broken.png'}" in done.err
    assert "vggnet: cannot read missing.png: No such file" in done.err
    assert "Traceback" not in done.err


def test_an_empty_sheet_hides_no_problem_of_an_image(
    vggnet: Command, digit_model: Path, images: Path
) -> None:
    """Both the unreadable image and the sheet without anything to draw are reported."""
    done = vggnet("predict", digit_model, images / "more", "missing.png", "--show", "seen.png")
    assert done.code == 1
    *_, first, second = done.err.splitlines()
    assert first == "vggnet: cannot read missing.png: No such file or directory"
    assert second.startswith("vggnet: ")
    assert "seen.png" in second


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or (os.geteuid() == 0 and not shutil.which("setpriv")),
    reason="no file can be locked against this user",
)
def test_a_locked_image_is_one_problem_of_many(digit_model: Path, images: Path) -> None:
    """What this user may not read is named; the others are answered."""
    (images / "digit_1.png").chmod(0)
    # Root reads what is locked too, unless those of its rights are taken away.
    weaken = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]
    files = [str(images / f"digit_{index}.png") for index in range(3)]
    done = subprocess.run(
        [
            *(weaken if os.geteuid() == 0 else []),
            *(sys.executable, "-m", "vggnet", "predict", str(digit_model), *files),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert [line.split()[0] for line in done.stdout.splitlines()] == [files[0], files[2]]
    assert done.stderr == f"vggnet: cannot read {files[1]}: Permission denied\n"


def test_standard_input(vggnet: Command, fork: Start, digit_model: Path, images: Path) -> None:
    """`-` is an image through a pipe, and the answer is the file's."""
    arguments = ["predict", digit_model, "--format", "json"]
    path = images / "digit_1.png"
    reading, writing = os.pipe()
    os.write(writing, path.read_bytes())  # less than a pipe's buffer
    os.close(writing)
    out, _ = fork("-m", "vggnet", *arguments, "-", stdin=reading).communicate()
    os.close(reading)
    (one,), (other,) = json.loads(out), json.loads(vggnet(*arguments, path).out)
    assert (one.pop("path"), other.pop("path")) == ("-", str(path))
    assert one == other


def test_pixels_as_they_are(vggnet: Command, digit_model: Path, mnist: Dataset) -> None:
    """--no-prepare gives what the network says to those very pixels, and wants its size."""
    Image.fromarray(mnist.test.images[7, 0]).save("own.png")
    Image.new("L", (30, 28)).save("other.png")
    done = vggnet(
        "predict", digit_model, "own.png", "other.png", "--no-prepare", "--format", "json"
    )
    assert done.code == 1
    assert "30 × 28 pixels, not 28 × 28" in done.err
    (answer,) = json.loads(done.out)
    expected = package.load(digit_model, kernels="torch").predict(mnist.test.images[7, 0])
    assert answer["class"] == expected.classes[0]
    assert answer["probability"] == pytest.approx(float(expected.probabilities.max()), abs=1e-6)


def test_a_row(vggnet: Command, digit_model: Path, mnist: Dataset) -> None:
    """--split gives the number, its digits, and which of them is the least sure."""
    row = 255 - np.concatenate([np.pad(mnist.test.images[at, 0], 4) for at in range(5)], axis=1)
    Image.fromarray(row).resize((row.shape[1] * 3, row.shape[0] * 3)).save("row.png")
    (answer,) = json.loads(
        vggnet("predict", digit_model, "row.png", "--split", "--format", "json").out
    )
    assert len(answer["number"]) == len(answer["digits"]) == 5
    shares = [digit["probability"] for digit in answer["digits"]]
    assert answer["least_sure"] == shares.index(min(shares))
    done = vggnet("predict", digit_model, "row.png", "--split")
    assert f"{answer['number']}  (lowest confidence: digit {answer['least_sure'] + 1}" in done.out


@pytest.mark.usefixtures("drawing")
def test_what_the_network_saw(vggnet: Command, digit_model: Path, images: Path) -> None:
    """--show writes an image; where nothing is drawn it says so."""
    assert vggnet("predict", digit_model, images, "--show", "seen.png").code == 0
    with Image.open("seen.png") as sheet:
        assert sheet.width > 500
    done = vggnet("predict", digit_model, images / "more", "--show", "blank.png")
    assert (done.code, Path("blank.png").exists()) == (1, False)


@pytest.mark.usefixtures("drawing")
def test_a_sheet_has_an_end(vggnet: Command, digit_model: Path, mnist: Dataset) -> None:
    """Of rows, digits are counted: 400 are drawn, and the rest is told of."""
    row = 255 - np.concatenate([np.pad(mnist.test.images[at, 0], 4) for at in range(5)], axis=1)
    Image.fromarray(row).resize((row.shape[1] * 3, row.shape[0] * 3)).save("row.png")
    done = vggnet("predict", digit_model, *81 * ["row.png"], "--split", "--show", "seen.png")
    assert done.code == 0
    assert done.err == "vggnet: warning: seen.png shows the first 400 of 405 predictions\n"
    with Image.open("seen.png") as sheet:
        assert sheet.height == int(110 * (50 * 1.85 + 0.5))  # 50 rows of eight


def test_many_images_are_answered_in_batches(
    vggnet: Command, digit_model: Path, tmp_path: Path, mnist: Dataset
) -> None:
    """More than one batch, each image once and in order."""
    folder = tmp_path / "many"
    folder.mkdir()
    for index in range(150):
        Image.fromarray(mnist.test.images[index, 0]).save(folder / f"{index:03}.png")
    answers = json.loads(vggnet("predict", digit_model, folder, "--format", "json").out)
    assert [Path(answer["path"]).stem for answer in answers] == [f"{at:03}" for at in range(150)]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--top", "0"], 2, "--top"),
        (["--format", "xml"], 2, "--format"),
        (["--split", "--no-prepare"], 2, "exclude each other"),
        (["--device", "gpu"], 2, "gpu"),
    ],
)
def test_mistakes(
    vggnet: Command, digit_model: Path, images: Path, arguments: list[str], code: int, words: str
) -> None:
    """Wrong usage is a sentence."""
    done = vggnet("predict", digit_model, images, *arguments)
    assert done.code == code
    assert words in done.err
    assert "Traceback" not in done.err


def test_an_empty_folder(vggnet: Command, digit_model: Path, tmp_path: Path) -> None:
    """A folder without images is an error, not silence."""
    (tmp_path / "empty").mkdir()
    done = vggnet("predict", digit_model, "empty")
    assert done.code == 1
    assert "there is no image in empty" in done.err


def write_rows(path: Path, images: np.ndarray, label: int | None = None) -> Path:
    """Write images as a CSV table, with or without a label."""
    first = [] if label is None else [label]
    rows = [",".join(map(str, [*first, *image.ravel().tolist()])) for image in images]
    path.write_text("\n".join(rows))
    return path


def test_a_table_gives_one_prediction_for_each_row(
    vggnet: Command, digit_model: Path, tmp_path: Path, mnist: Dataset
) -> None:
    """Its pixels are used as they are, and labels are not looked at."""
    images = mnist.test.images[:40]
    expected = package.load(digit_model, kernels="torch").predict(images).classes
    for label in (None, 3):
        path = write_rows(tmp_path / "test.csv", images, label)
        done = vggnet("predict", digit_model, path, "--format", "csv")
        rows = list(csv.DictReader(io.StringIO(done.out)))
        assert [row["class"] for row in rows] == expected
        assert [row["path"] for row in rows] == [f"{path}:{row}" for row in range(1, 41)]


def test_kaggle_s_format(vggnet: Command, digit_model: Path, mnist: Dataset) -> None:
    """--columns gives the number of the image, from 1, and the class, and nothing else."""
    write_rows(Path("test.csv"), mnist.test.images[:3])
    command = ("predict", digit_model, "test.csv", "--columns", "ImageId,Label")
    lines = vggnet(*command, "--format", "csv").out.splitlines()
    classes = package.load(digit_model, kernels="torch").predict(mnist.test.images[:3]).classes
    assert lines == ["ImageId,Label", *(f"{at},{name}" for at, name in enumerate(classes, 1))]
    for wrong in ((), ("--format", "csv", "--columns", "ImageId"), ("--format", "csv", "--split")):
        assert vggnet(*command, *wrong).code == 2


@pytest.mark.parametrize("kind", ["npz", "idx", "idx.gz"])
def test_other_files_of_digits(
    vggnet: Command, digit_model: Path, mnist: Dataset, kind: str
) -> None:
    """NPZ and IDX files give one prediction for each image, also of another size."""
    images = mnist.test.images[:5]
    if kind == "npz":
        np.savez(
            "digits.npz",
            x_train=images[:1],
            x_test=np.pad(images, ((0, 0), (0, 0), *2 * [(14, 14)])),
        )
    else:
        content = idx_bytes(images[:, 0])
        Path(f"digits.{kind}").write_bytes(gzip.compress(content) if "gz" in kind else content)
    done = vggnet("predict", digit_model, f"digits.{kind}")
    assert done.code == 0, done.err
    assert [line.split()[0] for line in done.out.splitlines()] == [
        f"digits.{kind}:{row}" for row in range(1, 6)
    ]
    assert ("those of the test split are read" in done.err) == (kind == "npz")


def test_formats_are_told_by_content(
    vggnet: Command, digit_model: Path, tmp_path: Path, mnist: Dataset
) -> None:
    """In a folder or a zip of it; what is left out is named."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    image = Image.fromarray(mnist.test.images[0, 0])
    for name, form in (
        ("a.png", "PNG"), ("b.tif", "TIFF"), ("c.jfif", "JPEG"), ("d.gif", "GIF"),
        ("e.pgm", "PPM"), ("noext", "PNG"), ("wrong.jpg", "WEBP"),
    ):  # fmt: skip
        image.save(folder / name, form)
    for name in ("notes.txt", "unknown", ".hidden.png"):
        (folder / name).write_text("no image")
    shutil.make_archive("packed", "zip", folder)
    for path, where in ((folder, f"{folder}"), (Path("packed.zip"), "packed.zip")):
        done = vggnet("predict", digit_model, path)
        assert done.code == 0, done.err
        labels = [line.split()[1] for line in done.out.splitlines()]
        assert len(labels) == 7
        assert len(set(labels)) == 1
        named = ".hidden.png, notes.txt, unknown"
        assert f"3 files in {where} are not images and are left out: {named}" in done.err


def test_one_bit_depth_counts_for_all_images(
    vggnet: Command, digit_model: Path, mnist: Dataset
) -> None:
    """8 and 10 bits stored in 16, and one pixel that is brighter: the digit is read each time."""
    pixels = 255 - np.asarray(Image.fromarray(mnist.test.images[0, 0]).resize((112, 112)))
    brighter = pixels.astype(np.uint16)
    brighter[0, 0] = 256
    images = {"max255": pixels, "max256": brighter, "10bit": pixels.astype(np.uint16) * 4}
    for name, values in images.items():
        Image.fromarray(values.astype(np.uint16)).save(f"{name}.png")
    names = [f"{name}.png" for name in images]
    together = vggnet("predict", digit_model, *names, "--top", 1).out
    alone = "".join(vggnet("predict", digit_model, name, "--top", 1).out for name in names)
    for out in (together, alone):
        assert [line.split()[1] for line in out.splitlines()] == ["7"] * 3


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pipes among files")
def test_bad_inputs_cost_no_other_prediction(
    vggnet: Command, digit_model: Path, images: Path, mnist: Dataset
) -> None:
    """A pipe, a damaged table, an empty folder, a huge image: each is named at the end."""
    os.mkfifo(images / "pipe.png")
    (images / "empty").mkdir()
    write_rows(images / "bad.csv", mnist.test.images[:3])
    (images / "bad.csv").write_text((images / "bad.csv").read_text()[:-9] + ",x,0,0,0")
    with (images / "huge.png").open("wb") as file:
        file.write((images / "digit_0.png").read_bytes())
        file.truncate(60 << 30)
    done = vggnet("predict", digit_model, images, images / "bad.csv", images / "empty")
    assert done.code == 1
    assert len(done.out.splitlines()) == 4
    for words in (
        "pipe.png: not a regular file",
        "huge.png: 64.4 GB are too much for an image file",
        "row 3: ",
        "there is no image in",
    ):
        assert words in done.err
    assert "--" not in done.err
