"""Images and labels that a program holds become a dataset, or are refused with the reason."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from vggnet.data.dataset import Dataset
from vggnet.errors import DataError

GREY = np.random.default_rng(0).integers(0, 256, (12, 10, 10), dtype=np.uint8)
COLOUR = np.random.default_rng(1).integers(0, 256, (12, 10, 8, 3), dtype=np.uint8)
LABELS = np.arange(12) % 2


def test_every_form_of_the_same_images_gives_the_same_dataset() -> None:
    """NumPy, torch, Pillow and lists; fractions, rows, and channels first or last."""
    expected = Dataset.from_arrays((GREY, LABELS), (GREY[:4], LABELS[:4]))
    assert np.array_equal(expected.train.images, GREY[:, np.newaxis])
    forms: list[object] = [
        GREY / 255,
        GREY.astype(np.int64),
        GREY[..., np.newaxis],
        GREY.reshape(12, -1),
        list(GREY),
        GREY.tolist(),
        torch.from_numpy(GREY),
        torch.from_numpy(GREY)[:, None] / 255,
        [Image.fromarray(one) for one in GREY],
    ]
    for images in forms:
        found = Dataset.from_arrays((images, LABELS), (GREY[:4], LABELS[:4]))
        assert found.sha256 == expected.sha256
    for labels in (LABELS.tolist(), torch.from_numpy(LABELS), LABELS.astype(float), LABELS > 0):
        found = Dataset.from_arrays((GREY, labels), (GREY[:4], labels[:4]))
        assert np.array_equal(found.train.labels, LABELS)


def test_colour_may_have_its_channels_first_or_last() -> None:
    """Both give (N, C, H, W); transparent images are laid on paper."""
    last = Dataset.from_arrays((COLOUR, LABELS))
    assert last.shape == (3, 10, 8)
    first = Dataset.from_arrays((COLOUR.transpose(0, 3, 1, 2) / 255, LABELS))
    assert first.sha256 == last.sha256
    opaque = np.concatenate([COLOUR, np.full((12, 10, 8, 1), 255, np.uint8)], axis=3)
    assert Dataset.from_arrays((opaque, LABELS)).sha256 == last.sha256


def test_classes_are_the_labels_or_the_given_names() -> None:
    """Names keep the order in which they are given; labels are sorted as people sort them."""
    named = Dataset.from_arrays((GREY, LABELS), classes=["zebra", "ant"])
    assert named.classes == ("zebra", "ant")
    numbers = Dataset.from_arrays((GREY, [10, 9] * 6))
    assert numbers.classes == ("9", "10")
    with pytest.raises(DataError, match="run from 0 to 1, and there are 1 classes"):
        Dataset.from_arrays((GREY, LABELS), classes=["only"])


def test_without_test_images_a_sixth_is_held_out_and_said_so() -> None:
    """The split is reported as a warning that names the way to choose it."""
    found = Dataset.from_arrays((GREY, LABELS))
    assert (len(found.train), len(found.test)) == (10, 2)
    assert "pass test=(images, labels)" in found.warnings[0]
    assert not Dataset.from_arrays((GREY, LABELS), (GREY[:2] // 2, LABELS[:2])).warnings


@pytest.mark.parametrize(
    ("images", "labels", "reason"),
    [
        (GREY * 1.0, LABELS, "divide by the value of white"),
        (GREY / 255 - 0.5, LABELS, "values from -0.5 to 0.5"),
        (GREY.astype(np.int64) + 1, LABELS, "values from 1 to 256"),
        (GREY.astype(object), LABELS, "type object"),
        (np.zeros((12, 5, 10, 10)), LABELS, "holds no images"),
        (np.zeros((12, 3, 10, 3), np.uint8), LABELS, "first or last"),
        (np.zeros((12, 7)), LABELS, "no square image"),
        ([*GREY[:11], GREY[0, :5]], LABELS, "different sizes; pass image_size=32"),
        ([[1, 2], [3]], LABELS, "no array can be made"),
        (GREY, LABELS[:5], "12 images but 5 labels"),
        (GREY, np.eye(12), "labels of shape"),
        (GREY, LABELS + 0.5, "neither whole numbers nor names"),
        (GREY, LABELS * 0, "only one class"),
        (GREY, LABELS - 1, "negative label"),
    ],
)
def test_anything_else_is_refused_with_the_reason(
    images: object, labels: object, reason: str
) -> None:
    """Nothing is scaled, cut or matched by a guess."""
    with pytest.raises(DataError, match=reason):
        Dataset.from_arrays((images, labels))


def test_images_of_several_sizes_are_fitted_to_the_one_that_is_asked_for() -> None:
    """Pillow images as a camera takes them, grey or colour, become one array."""
    pictures = [Image.new("RGB", (20 + at, 15), (at, 0, 90)) for at in range(11)]
    pictures.append(Image.new("L", (9, 30), 70))
    assert Dataset.from_arrays((pictures, LABELS), image_size=16).shape == (3, 16, 16)


def test_a_dataset_shows_itself() -> None:
    """One line says what it holds, and the sheet shows every class with its counts."""
    found = Dataset.from_arrays((COLOUR, ["<b>", "dog"] * 6), name="pets")
    expected = "Dataset(pets: 10 training and 2 test images, colour 8×10, 2 classes)"
    assert repr(found) == expected
    assert (
        repr(found.test) == "LabeledImages(2 images, colour 8×10, 2 classes: pets, held-out sixth)"
    )
    html = found._repr_html_()
    assert html.count("<img") == 2
    assert "&lt;b&gt;" in html
    assert "<b>" not in html
