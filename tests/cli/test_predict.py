"""`vggnet predict` as a person meets it."""

from __future__ import annotations

import csv
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
from conftest import Outcome
from vggnet.data.dataset import Dataset

Command = Callable[..., Outcome]


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
    assert [set(answer) for answer in answers] == [{"path", "class", "probability", "top"}] * 4
    first = answers[0]
    assert first["top"][0] == {"class": first["class"], "probability": first["probability"]}
    assert len(first["top"]) == 3
    assert (answers[3]["class"], answers[3]["top"]) == (None, [])
    done = vggnet("predict", digit_model, images, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(done.out)))
    assert [row["path"] for row in rows] == [answer["path"] for answer in answers]
    assert [row["class"] or None for row in rows] == [answer["class"] for answer in answers]
    assert float(rows[0]["probability"]) == pytest.approx(first["probability"], abs=1e-6)


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
    first, second = done.err.splitlines()
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


def test_standard_input(vggnet: Command, digit_model: Path, images: Path) -> None:
    """`-` is an image through a pipe, and the answer is the file's."""
    arguments = ["predict", digit_model, "--format", "json"]
    path = images / "digit_1.png"
    command = [sys.executable, "-m", "vggnet", *map(str, arguments), "-"]
    piped = subprocess.run(command, input=path.read_bytes(), capture_output=True, check=True)
    (one,), (other,) = json.loads(piped.stdout), json.loads(vggnet(*arguments, path).out)
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
    assert f"{answer['number']}  (least sure: digit {answer['least_sure'] + 1}" in done.out


def test_what_the_network_saw(vggnet: Command, digit_model: Path, images: Path) -> None:
    """--show writes an image; where nothing is drawn it says so."""
    assert vggnet("predict", digit_model, images, "--show", "seen.png").code == 0
    with Image.open("seen.png") as sheet:
        assert sheet.width > 500
    done = vggnet("predict", digit_model, images / "more", "--show", "blank.png")
    assert (done.code, Path("blank.png").exists()) == (1, False)


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
    assert "there is no PNG, JPEG, WebP or BMP image in empty" in done.err
