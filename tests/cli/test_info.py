"""`vggnet info` prints what a model file holds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from conftest import Outcome
from vggnet.config import ModelConfig
from vggnet.model.summary import summarize_network
from vggnet.model.vgg import VGG


def test_the_layers_are_those_of_the_paper() -> None:
    """VGG-D: 138 million parameters, 15.5 billion products, 212 pixels seen after stage 5.

    Table 2 of arXiv 1409.1556 has the parameters. The others follow by hand, and agree with
    torchvision's documentation (15.47 GFLOPS, a product and its sum counted as one).
    """
    with torch.device("meta"):
        config = ModelConfig(architecture="vgg-d", in_channels=3, image_size=224, num_classes=1000)
        network = VGG(config)
    rows = summarize_network(network)
    assert len(rows) == config.depth == 16
    assert sum(one.parameters for one in rows) == 138_357_544
    assert sum(one.operations for one in rows) / 2 == 15_470_264_320
    stages = {one.stage: one for one in rows}
    assert stages["5"].output == (512, 7, 7)
    assert [stages[str(at)].receptive_field for at in range(1, 6)] == [6, 16, 44, 100, 212]
    assert stages["classifier"].output == (1000,)


def test_receptive_fields_are_what_an_output_depends_on() -> None:
    """The gradient of one output reaches exactly as many pixels as the table says."""
    config = ModelConfig(stages=((4, 4), (4, "conv1-4"), (4,)), hidden=(4,), image_size=64)
    network = VGG(config)
    rows = summarize_network(network)
    images = torch.rand(1, 1, 64, 64, requires_grad=True)
    found = [_reach(network, images, pools) for pools in (1, 2, 3)]
    assert found == [rows[1].receptive_field, rows[3].receptive_field, rows[4].receptive_field]


def _reach(network: VGG, images: torch.Tensor, pools: int) -> int:
    """Return how many columns a value after so many pools depends on.

    Weights of one, and pools that average, reach every pixel that the network can.
    """
    output = images
    for layer in network.features:
        if isinstance(layer, torch.nn.Conv2d):
            weight = torch.ones_like(layer.weight)
            output = torch.nn.functional.conv2d(output, weight, padding=layer.padding)
        elif isinstance(layer, torch.nn.MaxPool2d):
            output = torch.nn.functional.avg_pool2d(output, 2)
            pools -= 1
            if not pools:
                break
    middle = output.shape[-1] // 2
    (gradient,) = torch.autograd.grad(output[0, 0, middle, middle], images)
    return int((gradient[0, 0] != 0).any(dim=0).sum())


def test_info_names_everything_that_is_known(
    vggnet: Callable[..., Outcome], digit_model: Path
) -> None:
    """Architecture, layers, classes, data and scores, for people and as JSON."""
    done = vggnet("info", digit_model)
    assert done.code == 0
    for words in (
        "custom, 4 layers with weights",
        "grey 28×28; mean 0.5, std 0.5",
        "10: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9",
        "trained on    mnist",
        "recipe        fast",
        "of 10,000 images",
        "conv 3×3, pool",
        "16×14×14",
        "4 pixels",
        "whole image",
    ):
        assert words in done.out
    found = json.loads(vggnet("info", digit_model, "--json").out)
    assert found["parameters"] == sum(one["parameters"] for one in found["layers"])
    assert found["test"]["accuracy"] == pytest.approx(0.9, abs=0.1)


def test_info_of_foreign_weights_says_what_is_not_known(
    vggnet: Callable[..., Outcome], tmp_path: Path
) -> None:
    """The article's file has no description: nothing is made up."""
    torch.save(VGG(ModelConfig()).state_dict(), tmp_path / "article.pth")
    done = vggnet("info", tmp_path / "article.pth")
    assert "vgg-mini, 6 layers with weights" in done.out
    assert "unknown: the file does not say" in done.out
    assert "test" not in done.out
