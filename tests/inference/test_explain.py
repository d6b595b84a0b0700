"""Explanations point at what the prediction depends on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import vggnet
from vggnet.artifacts.model_card import ModelCard
from vggnet.artifacts.model_file import LoadedModel
from vggnet.config import ModelConfig
from vggnet.data.dataset import Dataset
from vggnet.errors import ConfigError
from vggnet.inference.explain import edge_color, grad_cam, log_odds, occlude
from vggnet.inference.predict import Classifier
from vggnet.model.vgg import build_network


@pytest.fixture(scope="module")
def classifier(digit_model: Path) -> Classifier:
    """A network that reads most digits."""
    return vggnet.load(digit_model, kernels="torch")


def test_removing_the_evidence_costs_more_than_removing_the_rest(
    classifier: Classifier, mnist: Dataset
) -> None:
    """The 50 pixels with the most evidence matter more than the 50 brightest others."""
    images = mnist.test.images[:10]
    drops = []
    for image, index in zip(images, classifier.predict(images).indices.tolist(), strict=True):
        found = classifier.explain(image)
        assert (found.index, found.method, found.heat.shape) == (index, "occlusion", (28, 28))
        most = found.heat.ravel() >= np.sort(found.heat.ravel())[-50]
        rest = image.ravel() * ~most
        others = rest >= np.sort(rest)[-50]
        copies = [np.where(hidden.reshape(28, 28), 0, image) for hidden in (most, others)]
        odds = log_odds(classifier, np.stack([image, *copies]).astype(np.uint8), index)
        drops.append(odds[0] - odds[1:])
    assert np.mean(drops, axis=0)[0] > np.mean(drops, axis=0)[1] + 1


def test_occlusion_by_hand(classifier: Classifier, mnist: Dataset) -> None:
    """A pixel's evidence is the mean loss over all patches that hide it."""
    image, index = mnist.test.images[0], 7
    heat = occlude(classifier, image, index, patch=3)
    copies = [image]
    for row in range(8, 11):
        for column in range(12, 15):
            copy = image.copy()
            copy[:, row - 1 : row + 2, column - 1 : column + 2] = 0
            copies.append(copy)
    odds = log_odds(classifier, np.stack(copies), index)
    assert heat[9, 13] == pytest.approx((odds[0] - odds[1:]).mean(), abs=1e-3)


def test_a_class_can_be_asked_for(classifier: Classifier, mnist: Dataset) -> None:
    """Evidence for one class is not that for another, and there must be such a class."""
    image = mnist.test.images[0, 0]
    assert classifier.explain(image, "9").index == 9
    assert not np.allclose(classifier.explain(image, "9").heat, classifier.explain(image, "7").heat)
    with pytest.raises(ConfigError, match="no class 'x'"):
        classifier.explain(image, "x")


def test_a_blank_image_has_no_evidence(classifier: Classifier) -> None:
    """Hiding nothing changes nothing."""
    assert (classifier.explain(np.zeros((28, 28), np.uint8)).heat == 0).all()


@pytest.mark.parametrize(("side", "channels", "batch_norm"), [(68, 3, False), (65, 1, True)])
def test_large_images_get_grad_cam(side: int, channels: int, batch_norm: bool) -> None:
    """One map of the image's size for each stage, 0 to 1, and their mean; nothing is left over."""
    config = ModelConfig(
        stages=((4,), (8, 8)),
        hidden=(8,),
        in_channels=channels,
        image_size=68,
        num_classes=2,
        batch_norm=batch_norm,
    )
    card = ModelCard(classes=("a", "b"), image_shape=(channels, side, side))
    model = Classifier(LoadedModel(build_network(config, 0).eval(), card), "cpu", "torch")
    image = np.random.default_rng(0).integers(0, 256, (channels, side, side), dtype=np.uint8)
    before = model.predict(image[np.newaxis]).probabilities
    found = model.explain(image)
    assert found.method == "Grad-CAM"
    assert [heat.shape for heat in found.stages] == [(side, side)] * 2
    assert all(0 <= heat.min() <= heat.max() <= 1 for heat in found.stages)
    assert np.allclose(found.heat, np.mean(found.stages, axis=0))
    assert all(one.grad is None for one in model.network.parameters())
    assert np.array_equal(model.predict(image[np.newaxis]).probabilities, before)


def test_grad_cam_of_a_linear_layer(classifier: Classifier, mnist: Dataset) -> None:
    """A stage's map has its largest value where its weighted channels have theirs."""
    maps = grad_cam(classifier, mnist.test.images[0], 7)
    assert [one.shape for one in maps] == [(28, 28)] * 2
    assert all(one.max() > 0.5 for one in maps)


def test_the_edge_of_an_image() -> None:
    """Hidden pixels get the median color of the edge, per channel."""
    image = np.zeros((3, 5, 5), np.uint8)
    image[0] = 200
    image[:, 2, 2] = 99
    assert edge_color(image).ravel().tolist() == [200, 0, 0]
