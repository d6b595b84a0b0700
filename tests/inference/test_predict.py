"""A loaded model answers for arrays of any of the documented shapes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import vggnet
from vggnet.artifacts.model_file import ModelCard, save_model
from vggnet.config import ModelConfig
from vggnet.data.dataset import LabeledImages
from vggnet.errors import DataError
from vggnet.model.vgg import build_network


@pytest.fixture
def classifier(tmp_path: Path) -> vggnet.Classifier:
    """An untrained network that takes MNIST's images, padded to 32."""
    config = ModelConfig(stages=((4,), (8,), (8,)), hidden=(4,), image_size=32)
    card = ModelCard(classes=tuple("abcdefghij"), image_shape=(1, 28, 28))
    save_model(tmp_path / "model.pth", build_network(config, 0), card)
    return vggnet.load(tmp_path / "model.pth")


def test_shapes(classifier: vggnet.Classifier, few: LabeledImages) -> None:
    """One image, several, and several with a channel axis give the same answers."""
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
        [[0] * 28] * 28,
    ],
)
def test_other_arrays_are_refused(classifier: vggnet.Classifier, images: np.ndarray) -> None:
    """Floats, colours, other sizes and lists are refused in words."""
    with pytest.raises(DataError, match=r"must be a NumPy array of uint8|do not fit"):
        classifier.predict(images)


def test_classes_must_be_the_models(classifier: vggnet.Classifier, few: LabeledImages) -> None:
    """Images of another number of classes are not evaluated."""
    other = LabeledImages(few.images, few.labels, 11, "eleven classes")
    with pytest.raises(DataError, match="11 classes, the model tells 10 apart"):
        classifier.evaluate(other)
    assert classifier.evaluate(few).count == 300
