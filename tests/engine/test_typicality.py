"""Images unlike the training images are told from others, at the promised rate."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from vggnet.config import ModelConfig
from vggnet.engine.features import trace
from vggnet.engine.typicality import (
    Typicality,
    fit_typicality,
    layer_sizes,
    layer_values,
)
from vggnet.errors import DataError
from vggnet.kernels import accelerate
from vggnet.model.vgg import build_network

CLASSES = 3


def draw(count: int, seed: int, shift: float = 0.0) -> tuple[list[Tensor], np.ndarray]:
    """Return values of two layers, normal around a mean for each class, and the classes."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, CLASSES, count)
    layers = []
    for size in (30, 100):
        means = 3 * np.random.default_rng(size).normal(size=(CLASSES, size))
        values = means[labels] + generator.normal(size=(count, size)) + shift
        layers.append(torch.tensor(values, dtype=torch.float32))
    return layers, labels


@pytest.fixture(scope="module")
def typicality() -> Typicality:
    """Statistics of 2,000 images, and the scores of 2,000 others."""
    return fit_typicality(*draw(2_000, 0), draw(2_000, 1)[0])


def test_the_rate_of_false_alarms_is_kept(typicality: Typicality) -> None:
    """Of images like the training images, as many are below a rate as it says."""
    shares = typicality.rank(draw(5_000, 2)[0])
    for rate in (0.01, 0.1, 0.5):
        assert (shares < rate).mean() == pytest.approx(rate, abs=0.03)
    assert shares.min() >= 1 / 2_001
    assert shares.max() <= 1


def test_other_images_are_found(typicality: Typicality) -> None:
    """Values that are shifted by one standard deviation are rare; so are constant ones."""
    assert (typicality.rank(draw(500, 3, shift=1.0)[0]) < 0.01).mean() > 0.9
    assert (typicality.rank([torch.zeros(5, 30), torch.zeros(5, 100)]) < 0.01).all()


def test_images_are_ranked_alike_in_any_number() -> None:
    """A thousand images of 40 classes are ranked in parts, as if each came alone."""
    values = [torch.rand(1_000, 100, generator=torch.Generator().manual_seed(0))]
    found = fit_typicality(values, np.arange(1_000) % 40, values)
    ranks = found.rank(values)
    some = [0, 408, 409, 410, 999]
    alone = [found.rank([values[0][[at]]])[0] for at in some]
    assert ranks[some] == pytest.approx(alone, abs=0.002)


def test_it_survives_a_file(typicality: Typicality) -> None:
    """What JSON returns ranks images as before."""
    again = Typicality.model_validate(json.loads(typicality.model_dump_json()))
    assert again == typicality
    values, _ = draw(100, 4)
    assert np.array_equal(again.rank(values), typicality.rank(values))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda layer: layer["means"].update(data="?"), "not valid base64"),
        (lambda layer: layer["means"].update(shape=[9, 9]), "is not the shape"),
        (lambda layer: layer["means"].update(data="AHwA" * 60, shape=[3, 30]), "NaN or infinity"),
        (lambda layer: layer.update(means=layer["center"]), "unpack|shape"),
        (lambda layer: layer.update(whitening=layer["directions"]), "shape"),
        (lambda layer: layer.update(unit=0), "greater than 0"),
    ],
)
def test_damaged_statistics_are_refused(typicality: Typicality, change: object, words: str) -> None:
    """Reading them says what is wrong."""
    values = json.loads(typicality.model_dump_json())
    change(values["layers"][0])  # type: ignore[operator]
    with pytest.raises(ValidationError, match=words):
        Typicality.model_validate(values)


def test_too_few_images_are_refused() -> None:
    """Statistics of 64 directions need some hundred images."""
    with pytest.raises(DataError, match="too few training images"):
        fit_typicality(*draw(200, 0), draw(200, 1)[0])


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize(
    "stages", [((16,), (32,)), ((8, 8), (8, "conv1-8"), (16,)), ((8, "lrn"), (8,))]
)
def test_a_trace_holds_what_the_layers_compute(stages: object, batch_norm: bool) -> None:
    """Stage maps come after pool and ReLU, with and without kernels, in the sizes of the table."""
    config = ModelConfig(stages=stages, hidden=(12,), batch_norm=batch_norm, image_size=32)  # type: ignore[arg-type]
    network = build_network(config, 0).eval()
    images = torch.randn(3, 1, 32, 32)
    with torch.no_grad():
        found, logits = trace(network, images), network(images)
        fast = trace(accelerate(network), images)
    assert torch.allclose(found.logits, logits)
    for one, other in zip(found.stages, fast.stages, strict=True):
        assert one.min() >= 0
        assert torch.allclose(one, other, atol=1e-4)
    assert [one.shape[1] for one in layer_values(found)] == layer_sizes(config)
    assert torch.equal(network.classifier(found.stages[-1].flatten(1)), logits)
