"""A loaded model predicts for arrays of the documented shapes, and only for those."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import vggnet
from vggnet.artifacts.model_card import ModelCard
from vggnet.artifacts.model_file import save_model
from vggnet.config import ModelConfig
from vggnet.data.dataset import LabeledImages
from vggnet.errors import DataError, ModelFileError
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
    "images",
    [
        np.zeros((1, 28, 28), np.float32),
        np.zeros((1, 28, 28), np.int64),
        np.zeros((0, 28, 28), np.uint8),
        np.zeros((28,), np.uint8),
        np.zeros((1, 3, 28, 28), np.uint8),
        np.zeros((1, 64, 64), np.uint8),
        np.zeros((1, 20, 20), np.uint8),
        np.zeros((32, 32), np.uint8),
        np.zeros((1, 1, 28, 27), np.uint8),
        np.zeros((2, 1, 1, 28, 28), np.uint8),
        [[0] * 28] * 28,
    ],
)
def test_other_arrays_are_refused(classifier: vggnet.Classifier, images: np.ndarray) -> None:
    """Floats, colors, other sizes and lists are refused, and nothing is padded silently."""
    with pytest.raises(
        DataError, match=r"must be a NumPy array of uint8|this model takes \(N, 1, 28, 28\)"
    ):
        classifier.predict(images)


def test_classes_must_be_the_models(classifier: vggnet.Classifier, few: LabeledImages) -> None:
    """Images with another number of classes are not evaluated."""
    other = LabeledImages(few.images, few.labels, 11, "eleven classes")
    with pytest.raises(DataError, match="11 classes, and the model has 10"):
        classifier.evaluate(other)
    assert classifier.evaluate(few).count == 300


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
