"""A loaded model predicts for images of every documented form, and only for those."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import vggnet
from conftest import Outcome
from vggnet.artifacts.model_card import ModelCard
from vggnet.artifacts.model_file import save_model
from vggnet.config import ModelConfig
from vggnet.data.dataset import Dataset, LabeledImages
from vggnet.errors import ConfigError, DataError, ImageError, ModelFileError
from vggnet.model.vgg import build_network


@pytest.fixture
def classifier(tmp_path: Path) -> vggnet.Classifier:
    """An untrained network for MNIST's images, padded to 32."""
    config = ModelConfig(stages=((4,), (8,), (8,)), hidden=(4,), image_size=32)
    card = ModelCard(classes=tuple("abcdefghij"), image_shape=(1, 28, 28))
    save_model(tmp_path / "model.pth", build_network(config, 0), card)
    return vggnet.load(tmp_path / "model.pth")


def test_shapes(classifier: vggnet.Classifier, few: LabeledImages) -> None:
    """One image, several, and several with a channel axis give the same predictions."""
    whole = classifier.predict(few.images)
    assert whole.probabilities.shape == (300, 10)
    assert np.allclose(whole.probabilities.sum(axis=1), 1, atol=1e-5)
    assert whole.classes == ["abcdefghij"[index] for index in whole.indices]
    for images in (few.images[:5, 0], few.images[:5]):
        assert np.allclose(
            classifier.predict(images).probabilities, whole.probabilities[:5], atol=1e-6
        )
    assert classifier.predict(few.images[0, 0]).classes == whole.classes[:1]


@pytest.mark.parametrize(
    ("images", "reason"),
    [
        (np.full((2, 28, 28), 200.0), "values from 200 to 200; pixels are whole numbers"),
        (np.full((2, 28, 28), -0.5), "values from -0.5 to -0.5"),
        (np.full((2, 28, 28), np.nan), "values from nan to nan"),
        (np.zeros((2, 28, 28), complex), "type complex128"),
        (np.zeros((0, 28, 28), np.uint8), "are none"),
        (np.zeros((27,), np.uint8), "is no image"),
        (np.zeros((2, 1, 1, 28, 28), np.uint8), "is no image"),
        (np.zeros((2, 5, 28, 28), np.uint8), "holds no images"),
        ([[0, 1], [0]], "no array can be made of it"),
        ("missing.png", "cannot read missing.png: No such file"),
        (None, "type object"),
    ],
)
def test_what_is_no_image_is_refused(
    classifier: vggnet.Classifier, images: object, reason: str
) -> None:
    """Nothing is scaled or reshaped by a guess: the message says what is wrong."""
    with pytest.raises((DataError, ImageError), match=reason):
        classifier.predict(images)


def test_classes_must_be_the_models(classifier: vggnet.Classifier, few: LabeledImages) -> None:
    """Images with another number of classes are not evaluated."""
    other = LabeledImages(few.images, few.labels, 11, "eleven classes")
    with pytest.raises(DataError, match="11 classes, and the model has 10"):
        classifier.evaluate(other)
    assert classifier.evaluate(few).count == 300


def same(found: vggnet.Predictions, expected: vggnet.Predictions) -> bool:
    """Whether a network saw the same images, and said the same."""
    return np.array_equal(found.seen, expected.seen) and np.allclose(
        found.probabilities, expected.probabilities, atol=1e-6
    )


def test_every_form_of_the_same_images_predicts_the_same(
    classifier: vggnet.Classifier, few: LabeledImages
) -> None:
    """Floats, other integers, tensors, lists, rows and channels last are the images they hold."""
    images = few.images[:3, 0]
    expected = classifier.predict(images)
    forms: list[object] = [
        images / 255,
        images.astype(np.float32) / 255,
        images.astype(np.int64),
        images[:, np.newaxis],
        images[..., np.newaxis],
        images.reshape(3, -1),
        images.tolist(),
        list(images),
        torch.from_numpy(images.copy()),
        torch.from_numpy(images / 255).requires_grad_(),
        list(torch.from_numpy(images.copy())),
        few.take(np.arange(3), "three"),
    ]
    assert all(same(classifier.predict(one), expected) for one in forms)
    assert same(classifier(images), expected)
    assert same(classifier.predict(images, prepare=False), expected)


def test_pictures_are_prepared_as_the_command_line_does(
    classifier: vggnet.Classifier, vggnet: Callable[..., Outcome], few: LabeledImages
) -> None:
    """A path, a Pillow image, a photo's array, a folder and a list give the command's classes."""
    photo = Image.new("RGB", (200, 160), "white")
    drawn = Image.fromarray(255 - few.images[4, 0]).resize((90, 90))
    photo.paste(drawn, (40, 30))
    Path("photos").mkdir()
    for name in ("a.png", "b.png"):
        photo.save(f"photos/{name}")
    path = classifier.path
    (answer, _) = json.loads(vggnet("predict", path, "photos", "--format", "json").out)
    expected = classifier.predict("photos/a.png")
    assert expected.labels == [answer["class"]]
    assert expected[0].probability == pytest.approx(answer["probability"], abs=1e-5)
    pixels = np.asarray(photo)
    forms: list[object] = [
        Path("photos/a.png"),
        photo,
        photo.convert("RGBA"),
        pixels,
        pixels / 255,
        pixels.transpose(2, 0, 1),
        pixels[np.newaxis],
        torch.from_numpy(pixels.copy()).permute(2, 0, 1),
        [pixels],
    ]
    assert all(same(classifier.predict(one), expected) for one in forms)
    for several in ("photos", ["photos/a.png", "photos/b.png"], [photo, photo]):
        found = classifier.predict(several)
        assert found.labels == expected.labels * 2
        assert same(found[:1], expected)
    assert classifier.predict("photos").names == ("photos/a.png", "photos/b.png")
    with pytest.raises(ImageError, match="200 × 160 pixels, not 28 × 28"):
        classifier.predict(photo, prepare=False)


def test_preparing_can_be_chosen(classifier: vggnet.Classifier, few: LabeledImages) -> None:
    """A small picture is redrawn and an array of that size is not, unless one says so."""
    pixels = 255 - few.images[4, 0]
    picture = Image.fromarray(pixels)
    assert np.array_equal(classifier.predict(pixels)[0].seen[0], pixels)
    assert np.array_equal(classifier.predict(picture, prepare=False)[0].seen[0], pixels)
    redrawn = classifier.predict(picture)
    assert redrawn[0].seen[0, 0, 0] == 0  # white on black
    assert same(classifier.predict(pixels, prepare=True), redrawn)


def test_a_blank_image_has_no_label(classifier: vggnet.Classifier, few: LabeledImages) -> None:
    """Predictions stay in the order of the images: a blank one is one of them."""
    blank = np.full((100, 80), 255, np.uint8)
    found = classifier.predict([few.images[0, 0], blank])
    assert found.labels[1] is None
    assert found.labels[0] is not None
    assert found.indices[1] == -1
    assert found.top(2)[1] == []
    assert found[1].label is None
    assert np.isnan(found[1].probability)
    assert "nothing drawn" in repr(found)
    assert found.to_dict()["probabilities"][1] is None


def test_predictions_are_a_sequence(classifier: vggnet.Classifier, few: LabeledImages) -> None:
    """Predictions can be indexed, sliced, looped over and turned into plain values."""
    found = classifier.predict(few.images[:7])
    assert len(found) == 7
    assert [one.label for one in found] == found.labels
    assert found[-1].label == found.labels[-1]
    assert found[2:4].labels == found.labels[2:4]
    with pytest.raises(IndexError):
        found[7]
    assert np.array_equal(found[3].seen, few.images[3])
    assert [name for name, _ in found.top(10)[0]] == [name for name, _ in found[0].top]
    assert found.top(1)[0][0] == (found[0].label, found[0].probability)
    with pytest.raises(ConfigError, match="at least one"):
        found.top(0)
    plain = found.to_dict()
    assert json.loads(json.dumps(plain)) == plain
    assert plain["label"] == found.labels
    assert repr(found[:1]) == f"Predictions(1 image: {found[0]})"
    assert len(repr(found)) < 120
    pandas = pytest.importorskip("pandas")
    table = found.to_pandas()
    assert isinstance(table, pandas.DataFrame)
    assert list(table.columns) == ["image", "label", "probability"]


def test_a_model_is_evaluated_on_anything_with_labels(
    classifier: vggnet.Classifier, few: LabeledImages
) -> None:
    """Arrays with numbers or names, a dataset and its test images give the same figures."""
    expected = classifier.evaluate(few)
    names = ["abcdefghij"[label] for label in few.labels]
    assert classifier.evaluate((few.images, few.labels)).accuracy == expected.accuracy
    assert classifier.evaluate((few.images / 255, names)).accuracy == expected.accuracy
    dataset = Dataset("few", tuple("abcdefghij"), few, few, "")
    assert classifier.evaluate(dataset).accuracy == expected.accuracy
    assert f"{expected.correct} of 300" in repr(expected)
    html = expected._repr_html_()
    assert html.count("<img") == 2
    with pytest.raises(DataError, match="the model does not know: z"):
        classifier.evaluate((few.images[:2], ["a", "z"]))


def test_a_model_saves_itself(
    classifier: vggnet.Classifier, few: LabeledImages, tmp_path: Path
) -> None:
    """A saved model predicts the same; a file that vggnet did not write is kept."""
    path = classifier.save(tmp_path / "copy.safetensors")
    again = vggnet.load(path)
    assert again.card == classifier.card
    assert same(again.predict(few.images[:5]), classifier.predict(few.images[:5]))
    (tmp_path / "notes.pth").write_text("mine")
    with pytest.raises(ConfigError, match="force"):
        classifier.save(tmp_path / "notes.pth")


def test_a_model_exports_itself(
    classifier: vggnet.Classifier, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The file is named after the model's; an unknown format names the nearest one."""
    monkeypatch.chdir(tmp_path)
    assert classifier.export("safetensors") == Path("model.safetensors")
    assert vggnet.load("model.safetensors").classes == classifier.classes
    with pytest.raises(ConfigError, match="did you mean 'onnx'"):
        classifier.export("onx")


def test_a_model_shows_its_layers(classifier: vggnet.Classifier) -> None:
    """The line names the network, its images and its size; the table has a row per layer."""
    assert repr(classifier) == "Classifier(custom, 10 classes, grey 28×28, 1,486 parameters, cpu)"
    html = classifier._repr_html_()
    assert html.count("conv 3×3") == 3
    assert html.count("linear") == 2


def test_outputs_that_are_not_finite_are_an_error(tmp_path: Path, few: LabeledImages) -> None:
    """Finite weights can still overflow; no prediction is NaN."""
    network = build_network(ModelConfig(stages=((4,), (8,)), hidden=(4,)), 0)
    for parameter in network.parameters():
        parameter.data.mul_(1e30)
    card = ModelCard(classes=tuple("abcdefghij"), image_shape=(1, 28, 28))
    save_model(tmp_path / "model.pth", network, card)
    classifier = vggnet.load(tmp_path / "model.pth")
    with pytest.raises(ModelFileError, match="NaN or infinite for 300 of 300 images"):
        classifier.evaluate(few)
    with pytest.raises(ModelFileError, match="NaN or infinite"):
        classifier.predict(few.images)
