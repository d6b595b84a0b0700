"""NumPy archives of Keras, MedMNIST and scikit-learn; nothing in them is unpickled."""

from __future__ import annotations

import contextlib
import io
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vggnet.data.collection import Request
from vggnet.data.sources import load_collection
from vggnet.data.storage import load_dataset
from vggnet.errors import DataError, VggnetError

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (24, 28, 28), np.uint8)
LABELS = np.arange(24) % 4


def save(path: Path, **arrays: np.ndarray) -> Path:
    """Write an archive."""
    np.savez(path, **arrays)
    return path


def test_keras_keys(tmp_path: Path) -> None:
    """x_train, y_train, x_test, y_test: both splits as they are."""
    path = save(
        tmp_path / "mnist.npz",
        x_train=IMAGES, y_train=LABELS, x_test=IMAGES[:8], y_test=LABELS[:8],
    )  # fmt: skip
    found = load_dataset(path)
    assert found.name == "mnist"
    assert (found.train.images[:, 0] == IMAGES).all()
    assert (found.test.labels == LABELS[:8]).all()
    assert found.validation is None


def test_medmnist_keys(tmp_path: Path) -> None:
    """train_images and so on, with labels (N, 1); the validation split is used as such."""
    arrays = {}
    for name, count in (("train", 24), ("val", 12), ("test", 8)):
        arrays[f"{name}_images"] = IMAGES[:count]
        arrays[f"{name}_labels"] = LABELS[:count, np.newaxis].astype(np.uint8)
    found = load_dataset(save(tmp_path / "a.npz", **arrays))
    assert found.validation is not None
    assert (len(found.train), len(found.validation), len(found.test)) == (24, 12, 8)


@pytest.mark.parametrize("keys", ["data target", "images labels", "X y"])
def test_one_split(tmp_path: Path, keys: str) -> None:
    """Without a test split, a sixth of each class is held out."""
    images, labels = keys.split()
    found = load_dataset(save(tmp_path / "a.npz", **{images: IMAGES, labels: LABELS}))
    assert (len(found.train), len(found.test)) == (20, 4)


SHAPES = {
    "(N, H, W)": (IMAGES, IMAGES[:, np.newaxis]),
    "(N, H, W, 1)": (IMAGES[..., np.newaxis], IMAGES[:, np.newaxis]),
    "(N, 1, H, W)": (IMAGES[:, np.newaxis], IMAGES[:, np.newaxis]),
    "(N, 784)": (IMAGES.reshape(24, -1), IMAGES[:, np.newaxis]),
    "(N, H, W, 3)": (
        np.repeat(IMAGES[..., np.newaxis], 3, axis=3),
        np.repeat(IMAGES[:, np.newaxis], 3, axis=1),
    ),
    "fractions": (IMAGES.astype(np.float64) / 255, IMAGES[:, np.newaxis]),
    "int64": (IMAGES.astype(np.int64), IMAGES[:, np.newaxis]),
    "columns first": (np.asfortranarray(IMAGES), IMAGES[:, np.newaxis]),
    "big-endian": (IMAGES.astype(">i4"), IMAGES[:, np.newaxis]),
}


@pytest.mark.parametrize(("stored", "expected"), SHAPES.values(), ids=SHAPES)
def test_shapes_and_types(tmp_path: Path, stored: np.ndarray, expected: np.ndarray) -> None:
    """All common ones give the same images."""
    path = save(tmp_path / "a.npz", x_train=stored, y_train=LABELS, x_test=stored, y_test=LABELS)
    assert (load_dataset(path).test.images == expected).all()


def test_names_as_labels(tmp_path: Path) -> None:
    """Strings are class names."""
    names = np.array(["cat", "dog", "emu", "fox"])[LABELS]
    found = load_dataset(save(tmp_path / "a.npz", images=IMAGES, labels=names))
    assert found.classes == ("cat", "dog", "emu", "fox")


def test_names_that_are_no_text_are_refused(tmp_path: Path) -> None:
    """NumPy's strings hold any number; those beyond Unicode would be an error of Python itself."""
    names = np.array(["cat", "dog", "emu", "fox"])[LABELS]
    names.view(np.uint32)[0] = 0x11_0000
    path = save(tmp_path / "a.npz", x_train=IMAGES, y_train=names)
    with pytest.raises(DataError, match=r"a\.npz has labels that are not Unicode text"):
        load_dataset(path)


def test_dark_images_are_warned_of(tmp_path: Path) -> None:
    """Values 0 to 16, as in scikit-learn's digits, are nearly black."""
    path = save(tmp_path / "a.npz", data=IMAGES // 16, target=LABELS)
    assert "is dark: no pixel value is above 15, of 255" in load_dataset(path).warnings[0]


class Boom:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        """Raise on loading."""
        return (pytest.fail, ("code was run",))


DAMAGE = {
    "objects": ({"x_train": np.array([Boom()] * 24), "y_train": LABELS}, "holds Python objects"),
    "object labels": ({"x_train": IMAGES, "y_train": np.array([Boom()] * 24)}, "Python objects"),
    "no labels": ({"x_train": IMAGES}, "can be predicted but not trained on"),
    "a label missing": ({"images": IMAGES, "labels": LABELS[:-1]}, "24 images but 23 labels"),
    "one-hot labels": ({"images": IMAGES, "labels": np.eye(4)[LABELS]}, "labels of shape (24, 4)"),
    "NaN": ({"images": np.full((24, 8, 8), np.nan), "labels": LABELS}, "from nan to nan"),
    "negative": ({"images": IMAGES.astype(int) - 9, "labels": LABELS}, "from -9 to 246"),
    "0 to 16 as floats": ({"images": IMAGES / 16, "labels": LABELS}, "fractions from 0 to 1"),
    "complex": ({"images": IMAGES * 1j, "labels": LABELS}, "has type complex128"),
    "two places": ({"images": np.zeros((24, 3, 8, 3)), "labels": LABELS}, "first or last"),
    "five dimensions": ({"images": IMAGES[:, None, None], "labels": LABELS}, "holds no images"),
    "no square": ({"images": np.zeros((24, 700)), "labels": LABELS}, "no square image"),
    "other names": ({"pictures": IMAGES, "labels": LABELS}, "has the arrays pictures, labels;"),
    "a number": ({"images": np.uint8(7), "labels": LABELS}, "holds no images"),
    "nothing": ({}, "has the arrays (none);"),
    "infinite labels": ({"images": IMAGES, "labels": np.full(24, np.inf)}, "neither whole numbers"),
}


@pytest.mark.parametrize(("arrays", "words"), DAMAGE.values(), ids=DAMAGE)
@pytest.mark.filterwarnings("ignore:invalid value")
def test_what_is_no_set_of_images(
    tmp_path: Path, arrays: dict[str, np.ndarray], words: str
) -> None:
    """The message names the file and the array, and no code is run."""
    path = save(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError) as caught:
        load_collection(path, Request())
    assert words in str(caught.value)
    assert str(path) in str(caught.value)


def header(shape: str, kind: str = "'|u1'") -> bytes:
    """Return an NPY header that claims any shape."""
    text = f"{{'descr': {kind}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    text += b" " * (63 - (10 + len(text)) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


HEADERS = {
    "terabytes": header("(1000000, 1000, 1000)"),
    "a negative size": header("(-1, 28, 28)"),
    "an expression": header("(2 ** 9 ** 9 ** 9,)"),
    "a strange type": header("(3, 4, 4)", "'|V9999999999'"),
    "a pickle": pickle.dumps([Boom()]),
    "nothing": b"",
    "half a header": header("(24, 28, 28)")[:40],
    "an open bracket": header("(24, (28, 28)"),
    "a deep expression": header("(" + 9_000 * "-" + "1,)"),
}


@pytest.mark.parametrize("content", HEADERS.values(), ids=HEADERS)
def test_headers_are_not_believed(tmp_path: Path, content: bytes) -> None:
    """A header of some bytes costs no memory and runs no code."""
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x_train.npy", content)
        archive.writestr("y_train.npy", content)
    with pytest.raises(DataError, match=r"a\.npz"):
        load_collection(path, Request())


@given(st.data())
def test_any_damage_gives_images_or_a_data_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Cut anywhere, or with other bytes anywhere, it ends in no other exception."""
    file = io.BytesIO()
    np.savez(file, x_train=IMAGES[:4, :8, :8], y_train=LABELS[:4])
    content = bytearray(file.getvalue())
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=4)):
        content[place] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("npz") / "a.npz"
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    with contextlib.suppress(VggnetError):
        assert load_collection(path, Request()).images.dtype == np.uint8
