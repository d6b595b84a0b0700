"""The VGG family has the published sizes, and the names of torchvision and the article."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from vggnet.architectures import ARCHITECTURES
from vggnet.config import ModelConfig
from vggnet.errors import ConfigError, ModelFileError
from vggnet.model.folding import fold_batch_norm
from vggnet.model.infer import infer_config
from vggnet.model.vgg import VGG, build_network, padded_size, resample

ARTICLE = Path(__file__).parents[3] / "shared" / "article" / "vggnet_cpu.py"
"""The article's script, if it is next to this checkout."""

IMAGENET = {
    "vgg-a": 132_863_336,
    "vgg-a-lrn": 132_863_336,
    "vgg-b": 133_047_848,
    "vgg-c": 133_638_952,
    "vgg-d": 138_357_544,
    "vgg-e": 143_667_240,
}
"""Parameters for 224 pixels, 3 channels, 1,000 classes. A, B, D, E: torchvision's vgg11, 13, 16
and 19; all agree with the paper's table 2, which is in millions."""

CONV_NAMES = [f"features.{index}.{kind}" for index in (0, 2, 5, 7) for kind in ("weight", "bias")]
LINEAR_NAMES = [f"classifier.{index}.{kind}" for index in (0, 3) for kind in ("weight", "bias")]


def small(name: str, **changes: object) -> ModelConfig:
    """Return a member for the smallest image, with a narrow classifier."""
    values = {"architecture": name, "image_size": 4 if name == "vgg-mini" else 32, "hidden": (8,)}
    return ModelConfig.model_validate(values | changes)


def count(network: nn.Module) -> int:
    """Count the parameters."""
    return sum(parameter.numel() for parameter in network.parameters())


def test_vgg_mini_is_the_articles_network() -> None:
    """It has 467,818 parameters, with the names of the article's class."""
    network = build_network(ModelConfig(), seed=0)
    assert count(network) == 467_818
    assert list(network.state_dict()) == CONV_NAMES + LINEAR_NAMES


@pytest.mark.parametrize("name", IMAGENET)
def test_family_has_the_papers_sizes(name: str) -> None:
    """Every column of table 1 has its published number of parameters."""
    with torch.device("meta"):
        network = VGG(
            ModelConfig(architecture=name, in_channels=3, num_classes=1000, image_size=224)
        )
    assert count(network) == IMAGENET[name]


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_member_runs_and_is_recognized(name: str, batch_norm: bool) -> None:
    """Each maps (N, C, S, S) to (N, classes), and its configuration follows from its shapes."""
    config = small(name, batch_norm=batch_norm, in_channels=2, num_classes=7)
    network = build_network(config, seed=0).eval()
    size = config.image_size
    assert network(torch.zeros(3, 2, size, size)).shape == (3, 7)
    shapes = {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}
    found = infer_config(shapes)
    assert found.layers == config.layers
    assert (found.in_channels, found.num_classes, found.image_size) == (2, 7, size)
    VGG(found).load_state_dict(network.state_dict())


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_width_keeps_the_shape_of_a_member(name: str) -> None:
    """At a quarter of the width, each stage has a quarter of the channels, at least 8."""
    full, narrow = small(name), small(name, width=0.25)
    assert narrow.depth == full.depth
    assert narrow.name == "custom × 0.25"
    assert ModelConfig(architecture=name, width=0.25).name == f"{name} × 0.25"
    widths = [module.out_channels for module in convolutions(full)]
    assert [m.out_channels for m in convolutions(narrow)] == [max(8, w // 4) for w in widths]
    network = build_network(narrow, 0)
    size = narrow.image_size
    assert network(torch.zeros(2, 1, size, size)).shape == (2, 10)
    shapes = {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}
    assert infer_config(shapes).layers == narrow.layers


def convolutions(config: ModelConfig) -> list[nn.Conv2d]:
    """Return a network's convolutions."""
    with torch.device("meta"):
        return [module for module in VGG(config).modules() if isinstance(module, nn.Conv2d)]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_full_members_are_recognized_by_name(name: str) -> None:
    """With the table's classifier, the name is inferred as well."""
    config = ModelConfig(architecture=name, image_size=32)
    with torch.device("meta"):
        state = VGG(config).state_dict()
    assert infer_config({key: tuple(one.shape) for key, one in state.items()}) == config


def test_torchvisions_weights_load_strictly_and_agree() -> None:
    """The vgg16 and vgg16_bn of torchvision give the same logits in our D at 224 pixels."""
    models = pytest.importorskip("torchvision.models")
    image = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    for name, batch_norm in (("vgg16", False), ("vgg16_bn", True)):
        theirs = getattr(models, name)().eval()
        with torch.device("meta"):
            ours = VGG(
                ModelConfig(
                    architecture="vgg-d",
                    in_channels=3,
                    num_classes=1000,
                    image_size=224,
                    batch_norm=batch_norm,
                )
            ).eval()
        ours.load_state_dict(theirs.state_dict(), strict=True, assign=True)
        with torch.no_grad():
            expected, found = theirs(image), ours(image)
        assert (found - expected).norm() <= 1e-5 * expected.norm()


def test_the_articles_class_loads_our_weights_strictly() -> None:
    """The class in the article's script takes our state_dict and gives the same logits."""
    if not ARTICLE.exists():
        pytest.skip("the article's script is not next to this checkout")
    tree = ast.parse(ARTICLE.read_text())
    tree.body = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    scope: dict[str, type[nn.Module]] = {"nn": nn}  # type: ignore[dict-item]
    exec(compile(tree, str(ARTICLE), "exec"), scope)
    theirs = scope["VGGNet"]().eval()
    ours = build_network(ModelConfig(), seed=3).eval()
    theirs.load_state_dict(ours.state_dict(), strict=True)
    images = torch.randn(4, 1, 28, 28)
    assert torch.allclose(theirs(images), ours(images), atol=1e-6)


@pytest.mark.parametrize("size", [0, 27, 30, 31])
def test_sizes_that_pools_cannot_halve_are_refused(size: int) -> None:
    """The error names the next larger size that works."""
    config = ModelConfig().model_copy(update={"image_size": size})
    with pytest.raises(ConfigError, match=f"use an image size of {-(-size // 4) * 4}"):
        VGG(config)


def test_28_pixels_are_padded_to_32_for_five_pools() -> None:
    """Every member takes MNIST."""
    assert padded_size(ModelConfig(), 28) == 28
    assert padded_size(ModelConfig(architecture="vgg-d"), 28) == 32


@pytest.mark.parametrize("initialization", ["torch", "he"])
def test_initial_weights_depend_on_the_seed_alone(initialization: str) -> None:
    """Equal seeds give equal weights, and the global generator does not change."""
    config = small("vgg-mini", initialization=initialization)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, second = build_network(config, 1), build_network(config, 1)
    assert torch.equal(torch.rand(3), expected)
    other = build_network(config, 2)
    for a, b, c in zip(first.parameters(), second.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
        assert not torch.equal(a, c) or not a.any()


def test_initial_scales_are_as_stated() -> None:
    """torch: uniform in ±1/sqrt(fan_in); he: variance 2/fan_in, biases zero."""
    plain = build_network(ModelConfig(), 0)
    second = plain.features[2]
    assert isinstance(second, nn.Conv2d)
    bound = (32 * 9) ** -0.5
    assert second.weight.abs().max() <= bound
    assert second.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)
    he = build_network(ModelConfig(initialization="he"), 0).features[2]
    assert isinstance(he, nn.Conv2d)
    assert he.bias is not None
    assert not he.bias.any()
    assert he.weight.std().item() == pytest.approx((2 / (32 * 9)) ** 0.5, rel=0.05)


@pytest.mark.parametrize("name", ["vgg-mini", "vgg-a-lrn", "vgg-c"])
@settings(max_examples=10)  # each has a million statistics
@given(seed=st.integers(0, 2**31))
def test_folding_keeps_the_function(name: str, seed: int) -> None:
    """For any statistics of batch norm, the folded network's outputs agree to 1e-5."""
    config = small(name, batch_norm=True)
    network = build_network(config, seed).eval()
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.uniform_(-1, 1, generator=generator)
            module.running_var.uniform_(0.01, 4, generator=generator)
            nn.init.uniform_(module.weight, 0.2, 2, generator=generator)
            nn.init.uniform_(module.bias, -1, 1, generator=generator)
    images = torch.randn(4, 1, config.image_size, config.image_size, generator=generator)
    folded = fold_batch_norm(network)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    with torch.no_grad():
        expected, found = network(images), folded(images)
    assert (found - expected).abs().max() <= 1e-5 * max(1.0, expected.abs().max().item())


def test_folding_without_batch_norm_changes_nothing() -> None:
    """Without batch norm, the same object is returned."""
    network = build_network(small("vgg-mini"), 0)
    assert fold_batch_norm(network) is network


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "not those of a VGG"),
        ({"conv1.weight": (8, 1, 3, 3), "fc.weight": (10, 8)}, "conv1.weight"),
        ({"features.0.weight": (8, 1, 3, 3)}, "not those of a VGG"),
        (
            {"features.0.weight": (8, 1, 5, 5), "classifier.0.weight": (10, 8)},
            "a 5×5 convolution",
        ),
        (
            {"features.0.weight": (8, 1, 3, 3), "classifier.0.weight": (10, 17)},
            "not a square",
        ),
        (
            {
                "features.0.weight": (8, 1, 3, 3),
                "features.9.weight": (8, 8, 3, 3),
                "classifier.0.weight": (10, 8),
            },
            "do not fill the numbers",
        ),
        ({"features.0.weight": (0, 1, 3, 3), "classifier.0.weight": (10, 8)}, "not those of"),
    ],
)
def test_shapes_of_other_networks_are_refused(
    changes: dict[str, tuple[int, ...]], words: str
) -> None:
    """The error says what does not fit a VGG."""
    with pytest.raises(ModelFileError) as caught:
        infer_config(changes)
    assert words in str(caught.value)


@given(old=st.integers(1, 40), side=st.integers(1, 40))
def test_resampling_is_pytorchs(old: int, side: int) -> None:
    """Larger or smaller, the pixels are those of bilinear interpolation with antialiasing."""
    images = torch.rand(2, 3, old, old)
    expected = F.interpolate(images, (side, side), mode="bilinear", antialias=True)
    assert torch.allclose(resample(images, side), expected, atol=1e-5)


def test_small_images_are_for_training_only() -> None:
    """In training the last maps of smaller images are enlarged; in evaluation they are refused."""
    network = build_network(ModelConfig(stages=((8,), (8,)), hidden=(8,)), 0)
    assert network.train()(torch.rand(2, 1, 16, 16)).shape == (2, 10)
    with pytest.raises(RuntimeError):
        network.eval()(torch.rand(2, 1, 16, 16))
