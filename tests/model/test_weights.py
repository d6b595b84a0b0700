"""Weights of other projects' VGGs load under any wrapper, and what cannot be loaded is said."""

from __future__ import annotations

import json
import logging
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

import vggnet
from vggnet.artifacts.model_file import Overrides, load_model
from vggnet.config import ModelConfig
from vggnet.errors import ConfigError, ModelFileError
from vggnet.model.vgg import VGG, build_network
from vggnet.model.weights import CONTAINERS, WRAPPERS

SMALL = ModelConfig(stages=((4,), (8,)), hidden=(4, 4), image_size=28)


def foreign(config: ModelConfig = SMALL, seed: int = 0) -> tuple[VGG, dict[str, Tensor]]:
    """Return a network, and its weights without a description."""
    network = build_network(config, seed).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 2)
            module.running_mean.uniform_(-1, 1)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
    return network, dict(network.state_dict())


def check_same(path: Path, network: VGG) -> None:
    """Check that a file gives the network's logits."""
    found = load_model(path).network
    config = network.config
    images = torch.randn(3, config.in_channels, config.image_size, config.image_size)
    with torch.no_grad():
        assert torch.allclose(found(images), network(images), atol=1e-5)


@given(
    containers=st.lists(st.sampled_from(CONTAINERS), max_size=3),
    wrappers=st.lists(st.sampled_from(sorted(WRAPPERS)), max_size=3),
    at=st.integers(0, 2),
    batch_norm=st.booleans(),
    as_safetensors=st.booleans(),
)
def test_any_wrapping_is_undone(
    tmp_path_factory: pytest.TempPathFactory,
    containers: list[str],
    wrappers: list[str],
    at: int,
    batch_norm: bool,
    as_safetensors: bool,
) -> None:
    """Nested under any known keys, and with known prefixes at any position, weights load."""
    network, state = foreign(SMALL.model_copy(update={"batch_norm": batch_norm}))
    wrapped: object = {}
    for name, tensor in state.items():
        parts = name.split(".")
        wrapped[".".join([*parts[:at], *wrappers, *parts[at:]])] = tensor  # type: ignore[index]
    path = tmp_path_factory.mktemp("wrapped") / "weights"
    if as_safetensors:
        save_file(wrapped, path)  # type: ignore[arg-type]
    else:
        for key in containers:
            wrapped = {"epoch": 3, key: wrapped, "optimizer": {"lr": 0.1}}
        torch.save(wrapped, path)
    check_same(path, network)


def test_data_parallel_of_the_features_alone(tmp_path: Path) -> None:
    """PyTorch's ImageNet example wraps only `features`, inside a checkpoint."""
    network, _ = foreign()
    weights = {
        name.replace("features.", "features.module."): one
        for name, one in network.state_dict().items()
    }
    checkpoint = {"epoch": 1, "arch": "vgg", "state_dict": weights}
    torch.save(checkpoint, tmp_path / "checkpoint.pth.tar")
    check_same(tmp_path / "checkpoint.pth.tar", network)


def test_other_objects_in_a_checkpoint_are_not_loaded(tmp_path: Path) -> None:
    """Arguments, NumPy numbers and paths beside the weights are left out, unconstructed."""
    network, state = foreign()
    checkpoint = {
        "args": Namespace(lr=0.1, out=Path("x")),
        "best": np.float64(0.9),
        "state_dict": state,
    }
    torch.save(checkpoint, tmp_path / "checkpoint.pth")
    check_same(tmp_path / "checkpoint.pth", network)


def test_averaged_weights(tmp_path: Path) -> None:
    """PyTorch's AveragedModel adds a counter and a prefix."""
    network, _ = foreign()
    averaged = torch.optim.swa_utils.AveragedModel(network)
    torch.save({"ema": averaged.state_dict()}, tmp_path / "ema.pth")
    check_same(tmp_path / "ema.pth", network)


def test_other_numbers_in_the_classifier(tmp_path: Path) -> None:
    """Dropout before a fully connected layer shifts its number, which does not matter."""
    network, state = foreign()
    numbers = {"0": "1", "3": "4", "6": "6"}
    renamed = {
        ".".join([part, numbers[at] if part == "classifier" else at, kind]): tensor
        for name, tensor in state.items()
        for part, at, kind in [name.split(".")]
    }
    torch.save(renamed, tmp_path / "cifar.pth")
    check_same(tmp_path / "cifar.pth", network)


def test_a_single_layer_and_convolutions_without_bias(tmp_path: Path) -> None:
    """`classifier` may be one nn.Linear, and batch norm makes a convolution's bias needless."""
    config = ModelConfig(stages=((4,), (8,)), hidden=(), batch_norm=True)
    network, state = foreign(config)
    with torch.no_grad():
        for module in network.features:
            if isinstance(module, nn.Conv2d):
                module.bias.zero_()  # type: ignore[union-attr]
    renamed = {
        name.replace("classifier.0.", "classifier."): tensor
        for name, tensor in state.items()
        if name not in ("features.0.bias", "features.4.bias")
    }
    torch.save(renamed, tmp_path / "plain.pth")
    check_same(tmp_path / "plain.pth", network)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_converted(
    tmp_path: Path, dtype: torch.dtype, caplog: pytest.LogCaptureFixture
) -> None:
    """Half and double precision load as float32, and the log says so."""
    _, state = foreign()
    torch.save({name: tensor.to(dtype) for name, tensor in state.items()}, tmp_path / "half.pth")
    for name, tensor in load_model(tmp_path / "half.pth").network.state_dict().items():
        assert torch.equal(tensor, state[name].to(dtype).float())
    assert f"holds {str(dtype).removeprefix('torch.')} tensors; converted to float32" in caplog.text


def quantize(tensor: Tensor) -> Tensor:
    """Return a quantized tensor."""
    return torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8)


@pytest.mark.filterwarnings("ignore:.*quant.*")
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.to(torch.complex64), "is complex64"),
        (lambda t: t.to(torch.int8), "is int8"),
        (lambda t: t.to(torch.float8_e4m3fn), "is float8_e4m3fn"),
        (lambda t: t > 0, "is bool"),
        (quantize, "is qint8"),
        (lambda t: t.to_sparse(), "is sparse"),
        (lambda t: t.to("meta"), "has a shape but no values"),
        (lambda t: torch.zeros(1).expand(t.shape), "repeats few stored values"),
    ],
)
def test_other_tensors_are_refused(
    tmp_path: Path, change: Callable[[Tensor], Tensor], words: str
) -> None:
    """The message names the first tensor that is not dense floating point, and its type."""
    _, state = foreign()
    torch.save({name: change(tensor) for name, tensor in state.items()}, tmp_path / "x.pth")
    with pytest.raises(ModelFileError) as caught:
        load_model(tmp_path / "x.pth")
    assert f"its tensor features.0.weight {words}" in str(caught.value)


def test_names_that_collide_without_prefixes_are_refused(tmp_path: Path) -> None:
    """A file of two networks does not load a mixture of both."""
    _, state = foreign()
    _, other = foreign(seed=1)
    both = {f"model.{name}": tensor for name, tensor in state.items()}
    both |= {f"ema_model.{name}": tensor for name, tensor in other.items()}
    torch.save(both, tmp_path / "both.pth")
    with pytest.raises(ModelFileError, match=r"are both features\.0\.weight"):
        load_model(tmp_path / "both.pth")


@pytest.mark.parametrize(
    ("keep", "words"),
    [("features", "none is named classifier"), ("classifier", "none is named features")],
)
def test_half_a_network_is_refused(tmp_path: Path, keep: str, words: str) -> None:
    """Convolutions without a classifier, or the reverse, are not a model."""
    _, state = foreign()
    torch.save({n: t for n, t in state.items() if n.startswith(keep)}, tmp_path / "half.pth")
    with pytest.raises(ModelFileError, match=words):
        load_model(tmp_path / "half.pth")


def test_batch_norm_in_the_classifier_is_refused(tmp_path: Path) -> None:
    """The message says what vggnet's classifiers consist of."""
    _, state = foreign()
    state["classifier.1.weight"] = torch.ones(4)
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(ModelFileError, match=r"classifier\.1 is not a fully connected layer"):
        load_model(tmp_path / "x.pth")


def test_dropout_is_not_taken_for_response_normalization(tmp_path: Path) -> None:
    """Both leave a number out; a file that does not say which is refused."""
    config = ModelConfig(stages=((4,), (4, "lrn"), (8,)), hidden=(4,), image_size=32)
    _, state = foreign(config)
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(ModelFileError, match="after stage 2, dropout or response normalization"):
        load_model(tmp_path / "x.pth")


def test_assumptions_are_logged_with_their_options(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file without description is the article's; what the caller says is not assumed."""
    monkeypatch.setattr(logging.getLogger("vggnet"), "propagate", True)
    _, state = foreign()
    path = tmp_path / "article.pth"
    torch.save(state, path)
    found = load_model(path)
    assert found.card.classes == tuple("0123456789")
    assert (found.card.image_shape, found.card.mean, found.card.std) == (
        (1, 28, 28),
        (0.5,),
        (0.5,),
    )
    (message,) = set(caplog.messages)
    for words in ("1×28×28 (--image-size)", "[-1, 1], as in the article (--mean, --std)",
                  "0 to 9 (--classes)"):  # fmt: skip
        assert words in message
    caplog.clear()
    said = Overrides(mean=(0.1307,), std=(0.3081,), image_size=27, classes=tuple("abcdefghij"))
    card = load_model(path, said).card
    assert (card.image_shape, card.mean, card.std) == ((1, 27, 27), (0.1307,), (0.3081,))
    assert card.classes == tuple("abcdefghij")
    assert not caplog.messages


@pytest.mark.parametrize(
    ("channels", "stages", "size", "expected"),
    [
        (1, ((4,), (8,)), 28, 28),
        (1, ((4,), (8,)), 32, 32),
        (1, ((4,), (8,), (8,)), 32, 28),
        (3, ((4,), (8,), (8,)), 32, 32),
    ],
)
def test_the_assumed_image_size(
    tmp_path: Path, channels: int, stages: tuple[tuple[int]], size: int, expected: int
) -> None:
    """Only gray images whose padding gives the network's size are taken for MNIST's."""
    config = ModelConfig(stages=stages, hidden=(4,), in_channels=channels, image_size=size)
    _, state = foreign(config)
    torch.save(state, tmp_path / "x.pth")
    assert load_model(tmp_path / "x.pth").card.image_shape == (channels, expected, expected)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"mean": (0.5, 0.5)}, "mean has 2 values for 1 channels"),
        ({"std": (0.0,)}, "greater than 0"),
        ({"mean": (float("nan"),)}, "finite"),
        ({"image_size": 64}, "64 pixels per side after padding, but its tensors are for 28"),
        ({"classes": ("a", "b")}, "2 classes, but its tensors are for 10"),
        ({"classes": ("a",) * 10}, "same name"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    tmp_path: Path, said: dict[str, tuple[float, ...]], words: str
) -> None:
    """What the caller says is checked as strictly as what a file says."""
    _, state = foreign()
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(ConfigError, match=words):
        load_model(tmp_path / "x.pth", Overrides(**said))  # type: ignore[arg-type]


def test_a_hub_folder_states_its_normalization(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A folder's config.json, as timm writes it, gives mean, std and class names."""
    config = SMALL.model_copy(update={"num_classes": 2})
    network, state = foreign(config)
    save_file(state, tmp_path / "model.safetensors")
    cfg = {"mean": [0.4], "std": [0.2], "input_size": [1, 28, 28]}
    facts = {"architecture": "vgg", "label_names": ["cat", "dog"], "pretrained_cfg": cfg}
    (tmp_path / "config.json").write_text(json.dumps(facts))
    card = load_model(tmp_path).card
    assert (card.classes, card.mean, card.std) == (("cat", "dog"), (0.4,), (0.2,))
    check_same(tmp_path, network)
    for broken in ("[]", "{", '{"mean": [0.4], "std": 5}', '{"id2label": {"5": "cat"}}'):
        (tmp_path / "config.json").write_text(broken)
        with pytest.raises(ModelFileError, match=r"config\.json|description"):
            load_model(tmp_path)


def test_load_takes_the_same_options(tmp_path: Path) -> None:
    """`vggnet.load` uses the same loader, with numbers or sequences."""
    _, state = foreign()
    torch.save(state, tmp_path / "x.pth")
    card = vggnet.load(tmp_path / "x.pth", mean=0.1, std=[0.3], classes="abcdefghij").card
    assert (card.mean, card.std, card.classes[9]) == ((0.1,), (0.3,), "j")


NAMES = ["vgg11", "vgg11_bn", "vgg13", "vgg16", "vgg16_bn", "vgg19"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("library", ["torchvision", "timm"])
def test_round_trips(tmp_path: Path, library: str, name: str) -> None:
    """Files of torchvision and timm give the same logits here, and ours give them there."""
    if library == "torchvision":
        models = pytest.importorskip("torchvision.models")
        theirs = getattr(models, name)(num_classes=7).eval()
    else:
        theirs = pytest.importorskip("timm").create_model(name, num_classes=7).eval()
    path = tmp_path / "theirs.safetensors"
    save_file(theirs.state_dict(), path)
    found = load_model(path).network
    image = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = theirs(image)
        assert (found(image) - expected).norm() <= 1e-5 * expected.norm()
    if library == "torchvision":
        again = getattr(models, name)(num_classes=7).eval()
        again.load_state_dict(found.state_dict(), strict=True)
        with torch.no_grad():
            assert torch.equal(again(image), expected)
