"""MNIST as CSV: Kaggle's layout and others, and every damaged row with its number."""

from __future__ import annotations

import contextlib
import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vggnet.data.collection import Request
from vggnet.data.files import open_file
from vggnet.data.sources import load_collection
from vggnet.data.sources.table import read_table
from vggnet.data.storage import load_dataset
from vggnet.errors import DataError, VggnetError

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (40, 1, 28, 28), np.uint8)
LABELS = np.arange(40) % 10


def rows_of(images: np.ndarray, labels: np.ndarray | None, delimiter: str = ",") -> list[str]:
    """Return images as rows of text, with the label first."""
    cells = images.reshape(len(images), -1).tolist()
    if labels is not None:
        cells = [[label, *row] for label, row in zip(labels.tolist(), cells, strict=True)]
    return [delimiter.join(map(str, row)) for row in cells]


def write(path: Path, rows: list[str], *header: str) -> Path:
    """Write a table, gzipped if its name says so."""
    text = "\n".join([*header, *rows, ""])
    content = text.encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


PIXELS = [f"pixel{number}" for number in range(784)]


@pytest.mark.parametrize("name", ["train.csv", "train.csv.gz"])
@pytest.mark.parametrize("header", [True, False])
def test_a_label_and_784_pixels(tmp_path: Path, name: str, header: bool) -> None:
    """With or without a header, raw or gzipped: a sixth of each class is held out."""
    rows = rows_of(IMAGES, LABELS)
    path = write(tmp_path / name, rows, *([",".join(["label", *PIXELS])] if header else []))
    found = load_dataset(path)
    assert (found.name, found.classes) == ("train", tuple("0123456789"))
    assert (len(found.train), len(found.test), found.shape) == (30, 10, (1, 28, 28))
    together = np.concatenate([found.train.images, found.test.images])
    assert sorted(map(bytes, together)) == sorted(map(bytes, IMAGES))
    assert ("taken for the labels" in " ".join(found.warnings)) != header


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_named_label_column_can_be_anywhere(tmp_path: Path, delimiter: str) -> None:
    """Beside it, a column that only numbers the rows is no pixel."""
    rows = [
        delimiter.join([str(number), *row.split(delimiter), f'"class {label}"'])
        for number, (row, label) in enumerate(
            zip(rows_of(IMAGES, None, delimiter), LABELS, strict=True)
        )
    ]
    path = write(tmp_path / "mnist.csv", rows, delimiter.join(["id", *PIXELS, "Class"]))
    found = read_table(open_file(path))
    assert (found.images == IMAGES).all()
    assert found.labels is not None
    assert found.labels.tolist() == [f"class {label}" for label in LABELS]


def test_colour_is_three_planes(tmp_path: Path) -> None:
    """3·8·8 pixels are red, green and blue; the assumption is a warning."""
    images = RNG.integers(0, 256, (6, 3, 8, 8), np.uint8)
    path = write(tmp_path / "a.csv", rows_of(images, LABELS[:6]))
    found = read_table(open_file(path))
    assert (found.images == images).all()
    assert "three planes of 8×8, red first" in found.warnings[1]


@pytest.mark.parametrize("unit", [1, 255])
def test_fractions_are_read(tmp_path: Path, unit: int) -> None:
    """0 to 1 is scaled; 0.0 to 255.0, as pandas writes it, is not."""
    rows = rows_of(IMAGES / (255 / unit), LABELS)
    path = write(tmp_path / "a.csv", rows)
    assert (read_table(open_file(path)).images == IMAGES).all()


def test_splits_of_a_folder(tmp_path: Path) -> None:
    """Files named for their split are that split; one without labels is not used."""
    write(tmp_path / "mnist_train.csv", rows_of(IMAGES, LABELS))
    write(tmp_path / "sample_submission.csv", ["1,0"], "ImageId,Label")
    test = write(tmp_path / "mnist_test.csv", rows_of(IMAGES[:20], LABELS[:20]))
    found = load_dataset(tmp_path)
    assert (found.train.images == IMAGES).all()
    assert (found.test.images == IMAGES[:20]).all()
    write(test, rows_of(IMAGES[:20], None))
    found = load_dataset(tmp_path)
    assert (len(found.train), len(found.test)) == (30, 10)
    assert f"{test} has no labels and is left out" in found.warnings
    with pytest.raises(DataError, match="can be predicted but not trained on"):
        load_dataset(test)
    write(tmp_path / "more.csv", rows_of(IMAGES, LABELS))
    with pytest.raises(DataError, match="their names do not tell the splits"):
        load_dataset(tmp_path)


def test_labels_1_to_10_are_ten_classes(tmp_path: Path) -> None:
    """There is no empty class 0, and 10 comes after 9."""
    found = load_dataset(write(tmp_path / "a.csv", rows_of(IMAGES, LABELS + 1)))
    assert found.classes == (*"123456789", "10")
    assert sorted(set(found.train.labels)) == list(range(10))


def test_emnist_s_tables_are_turned(tmp_path: Path) -> None:
    """Kaggle's CSV files of EMNIST hold transposed images, as EMNIST's own files do."""
    path = write(tmp_path / "emnist-letters-train.csv", rows_of(IMAGES, LABELS))
    found = read_table(open_file(path))
    assert (found.images == IMAGES.swapaxes(2, 3)).all()
    assert "transposed" in found.warnings[1]


def change(rows: list[str], at: int, cell: str) -> list[str]:
    """Put something else into one pixel."""
    cells = rows[at].split(",")
    cells[5] = cell
    return [*rows[:at], ",".join(cells), *rows[at + 1 :]]


GOOD = rows_of(IMAGES, LABELS)

DAMAGE = {
    "a missing cell": ([*GOOD[:30], GOOD[30].rpartition(",")[0]], "row 31: 784 columns, not 785"),
    "a cell too many": ([*GOOD[:2], GOOD[2] + ",0"], "row 3: 786 columns, not 785"),
    "NaN": (change(GOOD, 7, "nan"), "row 8: nan is no pixel"),
    "a negative value": (change(GOOD, 39, "-1"), "row 40: -1 is no pixel"),
    "256": (change(GOOD, 0, "256"), "row 1: 256 is no pixel"),
    "a word": (change(GOOD, 9, "seven"), "row 10: 'seven' is not a number"),
    "a cut row": ([*GOOD[:8], "0,1,2"], "row 9: 3 columns"),
    "a header in the middle": (
        [*GOOD[:5], ",".join(["label", *PIXELS]), *GOOD[5:]],
        "row 6: 'pixel0' is not a number",
    ),
    "mixed scales": (change(GOOD, 3, "0.5"), "has values from 0 to 255"),
    "a label that is empty": ([*GOOD, "," + ",".join(["0"] * 784)], "the label has 0 characters"),
    "a huge label": ([*GOOD, "x" * 300 + "," + ",".join(["0"] * 784)], "300 characters"),
    "a negative label": (rows_of(IMAGES, LABELS - 1), "negative label: -1"),
    "fractional labels": (rows_of(IMAGES, LABELS / 4), "neither whole numbers nor names"),
    "no square image": (["0" + ",5" * 700] * 3, "701 columns; a row must be a square image"),
    "only a header": ([",".join(["label", *PIXELS])], "has a header and no rows"),
    "two labels": ([",".join(["label", "class", *PIXELS])], "may have one column called label"),
    "two meanings": ([",".join("0" * 676)], "a header that calls the column of labels label"),
}


@pytest.mark.parametrize(("rows", "words"), DAMAGE.values(), ids=DAMAGE)
def test_damage_is_named_with_its_row(tmp_path: Path, rows: list[str], words: str) -> None:
    """The message has the file, the row and what is wrong with it."""
    path = write(tmp_path / "a.csv", rows)
    with pytest.raises(DataError) as caught:
        load_collection(path, Request())
    assert words in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_cut_gzip_file_is_damaged(tmp_path: Path) -> None:
    """Wherever it is cut."""
    path = write(tmp_path / "a.csv.gz", GOOD)
    whole = path.read_bytes()
    for length in (len(whole) - 4, len(whole) // 2):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match="is damaged"):
            load_collection(path, Request())


@given(
    images=hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2).map(lambda s: (s[0], 64))),
    label=st.integers(0, 300),
)
def test_what_was_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, images: np.ndarray, label: int
) -> None:
    """Any pixels and labels come back as they are."""
    path = tmp_path_factory.mktemp("table") / "a.csv"
    write(path, rows_of(images, np.full(len(images), label)))
    found = read_table(open_file(path))
    assert (found.images.reshape(len(images), -1) == images).all()
    assert found.labels is not None
    assert (found.labels == label).all()


@given(st.lists(st.text(alphabet="0123456789,.-+eEnaif\"'\t; \r\x00é", max_size=60), max_size=8))
def test_any_text_gives_images_or_a_data_error(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str]
) -> None:
    """No content ends in another exception."""
    path = tmp_path_factory.mktemp("table") / "a.csv"
    first = ",".join(["7"] * 65)
    path.write_text("\n".join([first, *lines]), encoding="utf-8", newline="")
    with contextlib.suppress(VggnetError):
        assert load_collection(path, Request()).images.dtype == np.uint8
