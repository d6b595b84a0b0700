"""What `look` shows is what the network computes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vggnet.artifacts.model_card import ModelCard
from vggnet.artifacts.model_file import LoadedModel
from vggnet.config import ModelConfig
from vggnet.data.dataset import Dataset
from vggnet.engine.features import trace
from vggnet.inference.look import fields, look
from vggnet.inference.predict import Classifier
from vggnet.model.vgg import build_network


@pytest.mark.parametrize("stages", [((4,), (4, 4), (4, "conv1-4")), ((4, 4), (4,))])
def test_a_receptive_field_is_what_the_gradient_reaches(stages: object) -> None:
    """The pixels on which a value depends are exactly those in its square."""
    config = ModelConfig(stages=stages, hidden=(), image_size=64, initialization="he")  # type: ignore[arg-type]
    network = build_network(config, 0).eval()
    with torch.no_grad():
        for one in network.parameters():
            one.abs_()  # so that no ReLU hides a pixel
    for number, field in enumerate(fields(network)):
        reached = torch.zeros(64, 64, dtype=torch.bool)
        for seed in range(6):  # a max pool passes the gradient of one value only
            torch.manual_seed(seed)
            images = torch.rand(1, 1, 64, 64, requires_grad=True)
            values = trace(network, images).stages[number]
            middle = values.shape[-1] // 2
            values[0, :, middle, middle].sum().backward()
            assert images.grad is not None
            reached |= images.grad[0, 0] != 0
        rows, columns = (reached.any(dim=one).nonzero().ravel() for one in (1, 0))
        left, top, side = field.box(middle, middle, (0, 0))
        assert (left, top) == (left // 1, top // 1)
        assert rows.min() >= top
        assert rows.max() < top + side
        assert columns.min() >= left
        assert columns.max() < left + side
        assert reached.sum() > 0.5 * side**2


def test_the_maximally_activating_images_are_found(mnist: Dataset) -> None:
    """They are those with the largest value in a channel's map, at that place."""
    config = ModelConfig(stages=((4,), (8,)), hidden=(8,))
    card = ModelCard(classes=tuple("0123456789"), image_shape=(1, 28, 28))
    model = Classifier(LoadedModel(build_network(config, 0).eval(), card), "cpu", "torch")
    others = mnist.test.images[:300]
    view = look(model, others[5], others, channels=2, most=3)
    assert view.filters.shape == (4, 1, 3, 3)
    with torch.no_grad():
        stages = trace(model.network, model.preprocess(torch.tensor(others))).stages
    for stage, values in zip(view.stages, stages, strict=True):
        assert np.allclose(stage.maps, values[5], atol=1e-5)
        assert len(stage.top_activations) == 2
        for one in stage.top_activations:
            peaks = values[:, one.channel].amax((1, 2))
            assert list(one.images) == peaks.topk(3).indices.tolist()
            for image, place in zip(one.images, one.places, strict=True):
                assert values[image, one.channel][place] == peaks[image]
