"""Runs start from trained weights, and frozen layers keep them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from conftest import Outcome
from vggnet.artifacts.model_file import load_model

Command = Callable[..., Outcome]
QUICK = ("--dataset", "digits", "--epochs", "0.1", "--threads", "1", "--recipe", "article")
"""One step."""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, digits: Path) -> None:
    """Have a small dataset in the current folder."""
    (tmp_path / "digits").symlink_to(digits)


def weights(path: str | Path) -> dict[str, torch.Tensor]:
    """Return a model file's weights."""
    return load_model(Path(path)).network.state_dict()


def test_frozen_layers_keep_the_initial_weights(vggnet: Command, digit_model: Path) -> None:
    """The layers are the file's; its first three layers stay, and the last one trains."""
    done = vggnet("train", *QUICK, "--init", digit_model, "--freeze", 3, "-o", "new.pth")
    assert done.code == 0, done.err
    digest = hashlib.sha256(digit_model.read_bytes()).hexdigest()
    assert load_model(Path("new.pth")).card.init == {"name": "model.pth", "sha256": digest}
    old, new = weights(digit_model), weights("new.pth")
    assert old.keys() == new.keys()
    for name, tensor in old.items():
        assert torch.equal(tensor, new[name]) == (not name.startswith("classifier.3"))


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "muon"])
def test_a_run_with_frozen_layers_resumes(
    vggnet: Command, digit_model: Path, optimizer: str
) -> None:
    """The file is not needed again, and frozen layers stay frozen."""
    settings = ("--init", "start.pth", "--freeze", 1, "--opt", optimizer, "--weight-decay", "0.1")
    settings += ("--init-lr", "0.1")
    Path("start.pth").write_bytes(digit_model.read_bytes())
    assert vggnet("train", *QUICK, *settings, "--name", "r", "-o", "one.pth").code == 0
    Path("start.pth").unlink()
    origin = load_model(Path("one.pth")).card.init
    done = vggnet("train", "--resume", "runs/r", "--epochs", "0.2")
    assert done.code == 0, done.err
    assert origin is not None
    assert load_model(Path("one.pth")).card.init == origin
    old, new = weights(digit_model), weights("one.pth")
    assert torch.equal(old["features.0.weight"], new["features.0.weight"])
    assert not torch.equal(old["features.3.weight"], new["features.3.weight"])


def test_another_dataset_keeps_what_fits(vggnet: Command, digit_model: Path) -> None:
    """Classes and channels of the new images are reported, and the result loads."""
    import numpy as np
    from PIL import Image

    for name in ("3", "cat"):
        Path("photos", name).mkdir(parents=True)
        for number in range(12):
            pixels = np.random.default_rng(number).integers(0, 255, (28, 28, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(f"photos/{name}/{number}.png")
    done = vggnet(
        "train", "--dataset", "photos", "--init", digit_model, "--epochs", "1", "--threads", "1"
    )
    assert done.code == 0, done.err
    assert "first layer: 1 to 3 channels" in done.err
    assert "last layer: kept 1 of 2 classes" in done.err
    assert load_model(Path("photos_vggnet.pth")).card.image_shape == (3, 28, 28)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--init", "missing.pth"), 1, "missing.pth: does not exist"),
        (("--init", "imagenet"), 2, "there are no ImageNet weights of vgg-mini"),
        (("--init", "imagenet", "--model", "vgg-d", "--no-download"), 1, "--no-download forbids"),
        (("--init", "m.pth", "--model", "vgg-a"), 2, "has the layers of custom, not of vgg-a"),
        (("--init", "m.pth", "--freeze", "4"), 2, "--freeze 4 leaves nothing to train"),
        (("--freeze", "some"), 2, "must be a number of layers or features, not 'some'"),
        (("--recipe", "finetune"), 2, "need trained weights to start from: add --init FILE"),
        (("--resume", "m.pth"), 1, "is a file, not the folder of a run"),
        (("--init", "m.pth", "-o", "m.pth"), 2, "is an input of this command"),
    ],
)
def test_mistakes(
    vggnet: Command,
    digit_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    code: int,
    words: str,
) -> None:
    """Each is reported before training, and nothing is written."""
    monkeypatch.setenv("VGGNET_CACHE_DIR", "cache")
    Path("m.pth").write_bytes(digit_model.read_bytes())
    done = vggnet("train", *QUICK, *arguments)
    assert (done.code, words in done.err) == (code, True), done.err
    assert sorted(path.name for path in Path().iterdir()) == ["digits", "m.pth"]


def test_frozen_convolutions_compute_no_gradient(digit_model: Path) -> None:
    """The backward pass ends at the first layer that trains, whose input needs no gradient."""
    network = load_model(digit_model).network.train()
    network.freeze(2)
    features = network.features(torch.rand(2, 1, 28, 28))
    assert not features.requires_grad
    network(torch.rand(2, 1, 28, 28)).sum().backward()
    trained = [name for name, one in network.named_parameters() if one.grad is not None]
    assert {name.partition(".")[0] for name in trained} == {"classifier"}


def test_all_convolutions_can_be_frozen_by_name(vggnet: Command, digit_model: Path) -> None:
    """`--freeze features` keeps them, whatever their number, and trains the rest."""
    done = vggnet("train", *QUICK, "--init", digit_model, "--freeze", "features", "-o", "new.pth")
    assert done.code == 0, done.err
    old, new = weights(digit_model), weights("new.pth")
    changed = [name for name, tensor in old.items() if not torch.equal(tensor, new[name])]
    assert {name.partition(".")[0] for name in changed} == {"classifier"}


def test_a_finished_run_goes_on_as_a_new_one(vggnet: Command, digit_model: Path) -> None:
    """Where its schedule cannot be extended, the message has the command that starts from it."""
    tiny = ("--stages", "8/8", "--hidden", "8", "--threads", "1", "--dataset", "digits")
    assert vggnet("train", *tiny, "--epochs", "0.1", "--name", "r").code == 0
    done = vggnet("train", "--resume", "runs/r", "--epochs", "0.2")
    assert done.code == 2
    assert "vggnet train --init runs/r/model.safetensors" in done.err
    done = vggnet("train", "--resume", "runs/r", "--init", digit_model)
    assert done.code == 2
    assert "leave out one of the two" in done.err
