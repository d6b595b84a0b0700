"""Parquet files, as Hugging Face publishes image sets."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from data.damage import damaged
from vggnet.data.storage import load_dataset
from vggnet.errors import DataError, VggnetError

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

IMAGES = np.random.default_rng(0).integers(0, 256, (24, 9, 9), np.uint8)
LABELS = (np.arange(24) % 3).tolist()
NAMES = ["zebra", "cat", "dog"]


def png(pixels: np.ndarray) -> bytes:
    """Return an image's file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def write(
    path: Path, count: int = 24, column: str = "image", label: str | None = "label",
    names: list[str] | None = NAMES,
) -> Path:  # fmt: skip
    """Write images and labels in groups of five rows."""
    cells = [{"bytes": png(pixels), "path": f"{at}.png"} for at, pixels in enumerate(IMAGES)]
    columns = {column: cells[:count], **({label: LABELS[:count]} if label else {})}
    table = pa.table(columns)
    if names:
        features = {label: {"names": names, "_type": "ClassLabel"}}
        about = json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({"huggingface": about})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=5)
    return path


@pytest.mark.parametrize(("column", "label"), [("image", "label"), ("img", "fine_label")])
def test_one_file(tmp_path: Path, column: str, label: str) -> None:
    """Class names are the file's, in its order; a sixth is held out."""
    found = load_dataset(write(tmp_path / "pets.parquet", column=column, label=label))
    assert (found.name, found.classes) == ("pets", tuple(NAMES))
    assert (len(found.train), len(found.test)) == (21, 3)
    together = [*found.train.images, *found.test.images]
    assert sorted(map(bytes, together)) == sorted(map(bytes, IMAGES))


def test_labels_without_names_are_numbers(tmp_path: Path) -> None:
    """As in other files."""
    assert load_dataset(write(tmp_path / "a.parquet", names=None)).classes == ("0", "1", "2")


@pytest.mark.parametrize("folder", ["", "data", "mnist"])
def test_shards_of_a_dataset(tmp_path: Path, folder: str) -> None:
    """train-* and test-*, in any folder; the order of rows is kept."""
    for number in (0, 1):
        write(tmp_path / folder / f"train-0000{number}-of-00002.parquet")
    write(tmp_path / folder / "test-00000-of-00001.parquet", 6)
    found = load_dataset(tmp_path)
    assert (len(found.train), len(found.test)) == (48, 6)
    assert (found.test.images[:, 0] == IMAGES[:6]).all()
    assert found.test.labels.tolist() == LABELS[:6]


def test_what_is_not_clear_is_refused(tmp_path: Path) -> None:
    """Two datasets, a split without a name, missing columns, missing labels."""
    write(tmp_path / "a" / "train.parquet")
    write(tmp_path / "b" / "train.parquet")
    with pytest.raises(DataError, match=r"holds 2 datasets of Parquet files \(a, b\)"):
        load_dataset(tmp_path)
    write(tmp_path / "a" / "more.parquet")
    with pytest.raises(DataError, match="the name does not tell the split"):
        load_dataset(tmp_path / "a")
    with pytest.raises(DataError, match="has the columns picture, label; images are read from"):
        load_dataset(write(tmp_path / "c" / "c.parquet", column="picture"))
    with pytest.raises(DataError, match="can be predicted but not trained on"):
        load_dataset(write(tmp_path / "d" / "d.parquet", label=None, names=None))
    with pytest.raises(DataError, match="labels that are none of its 2 class names"):
        load_dataset(write(tmp_path / "e" / "e.parquet", names=["one", "two"]))


def test_a_bad_row_costs_one_row(tmp_path: Path) -> None:
    """It is named by its number."""
    cells = [{"bytes": png(pixels), "path": None} for pixels in IMAGES]
    cells[7]["bytes"] = cells[7]["bytes"][:60]
    cells[9]["bytes"] = None
    pq.write_table(pa.table({"image": cells, "label": LABELS}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"2 of 24 files .*a.parquet:8 \(.*a.parquet:10 \("):
        load_dataset(tmp_path / "a.parquet")
    found = load_dataset(tmp_path / "a.parquet", skip_bad=True)
    assert len(found.train) + len(found.test) == 22


@given(st.data())
def test_any_damage_gives_images_or_an_error_of_ours(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Cut anywhere, or with other bytes anywhere, it ends in no other exception."""
    path = write(tmp_path_factory.mktemp("parquet") / "a.parquet", 12)
    path.write_bytes(data.draw(damaged(path.read_bytes())))
    with contextlib.suppress(VggnetError):
        assert load_dataset(path, skip_bad=True).train.images.dtype == np.uint8
