"""Datasets other than MNIST, from the command line to the model file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import Outcome
from vggnet.artifacts.model_file import load_model
from vggnet.data.catalog import CATALOG

Command = Callable[..., Outcome]

TINY = ("--stages", "8/8", "--hidden", "8", "--threads", "1")
FASHION = CATALOG["fashion-mnist"].system
CLASSES = ("cross", "disc", "square")


@pytest.mark.skipif(
    FASHION is None or not FASHION.is_dir(),
    reason="Debian's package dataset-fashion-mnist is not installed",
)
def test_fashion_mnist_from_debians_package(vggnet: Command) -> None:
    """It is found without a flag, verified, trained on, and evaluated with its own classes."""
    assert f"fashion-mnist    10 classes · in {FASHION}" in vggnet("data", "list").out
    assert "60,000 images, as published" in vggnet("data", "verify", "fashion-mnist").out
    done = vggnet("train", "--dataset", "fashion-mnist", "--no-download", "--epochs", "0.1", *TINY)
    assert done.code == 0, done.err
    found = json.loads(vggnet("evaluate", "fashion-mnist_vggnet.pth", "--json").out)
    assert found["classes"][:2] == ["T-shirt/top", "Trouser"]
    assert found["accuracy"] > 0.3
    wrong = vggnet("evaluate", "fashion-mnist_vggnet.pth", "--dataset", "mnist")
    assert wrong.code == 1
    assert "classes that the model does not know: 0, 1" in wrong.err


def draw(folder: Path, count: int) -> Path:
    """Draw `count` shapes in random colours and sizes, as PNG and JPEG."""
    generator = np.random.default_rng(0)
    for number in range(count):
        name = CLASSES[number % 3]
        width, height = generator.integers(24, 60, 2)
        y, x = np.mgrid[:height, :width] - generator.uniform(0.4, 0.6, (2, 1, 1)) * [
            [[height]],
            [[width]],
        ]
        size = min(width, height) * generator.uniform(0.2, 0.35)
        inside = {
            "cross": (abs(x) < size / 3) | (abs(y) < size / 3),
            "disc": x**2 + y**2 < size**2,
            "square": np.maximum(abs(x), abs(y)) < size,
        }[name]
        pixels = np.empty((height, width, 3), np.uint8)
        pixels[:] = generator.integers(0, 90, 3)
        pixels[inside] = generator.integers(140, 256, 3)
        (folder / name).mkdir(parents=True, exist_ok=True)
        suffix = "png" if number % 2 else "jpg"
        Image.fromarray(pixels).save(folder / name / f"{number:04}.{suffix}")
    return folder


@pytest.mark.usefixtures("drawing")
def test_a_folder_of_a_thousand_colour_images(vggnet: Command, tmp_path: Path) -> None:
    """A network learns three classes of shapes from a folder; the model file names them."""
    draw(tmp_path / "shapes", 1000)
    flags = ("--stages", "16/32", "--hidden", "32", "--threads", "1", "-b", "32")
    done = vggnet("train", "--dataset", "shapes", "--epochs", "6", *flags)
    assert done.code == 0, done.err
    assert "on shapes: recipe fast, 6 epochs of 748 images, 84 held out" in done.out
    card = load_model(Path("shapes_vggnet.pth")).card
    assert card.classes == CLASSES
    assert card.image_shape == (3, 32, 32)
    assert (card.mean, card.std) == ((0.5,) * 3, (0.5,) * 3)
    for dataset in ((), ("--dataset", "shapes")):
        found = json.loads(vggnet("evaluate", "shapes_vggnet.pth", *dataset, "--json").out)
        assert found["count"] == 168
        assert found["accuracy"] > 0.9
    seen = vggnet("evaluate", "shapes_vggnet.pth", "--dataset", draw(tmp_path / "new", 30))
    assert "new, all of it" in seen.out
    assert vggnet("data", "show", "shapes").out == "shapes.png\n"
    assert "cross: 278 to train on" in vggnet("data", "verify", "shapes").out


@pytest.mark.usefixtures("drawing")
def test_a_sheet_of_many_classes_shows_some(vggnet: Command) -> None:
    """The first 100 are drawn, and a warning says so."""
    labels = np.repeat(np.arange(102), 2)
    np.savez("many.npz", x_train=np.zeros((204, 8, 8), np.uint8), y_train=labels)
    done = vggnet("data", "show", "many.npz")
    assert (done.code, done.out) == (0, "many.png\n")
    assert "many.png shows the first 100 of 102 classes" in done.err


def test_a_run_on_a_changed_folder_is_not_resumed(vggnet: Command, tmp_path: Path) -> None:
    """A run can no longer be resumed after an image of its folder changes."""
    folder = draw(tmp_path / "shapes", 30)
    flags = ("--dataset", "shapes", "--epochs", "2", "-b", "4", "--name", "cut", *TINY)
    assert vggnet("train", *flags, "--sched", "constant").code == 0
    more = ("train", "--resume", "runs/cut", "--epochs", "3")
    (folder / "disc" / "new.png").write_bytes((folder / "square" / "0005.png").read_bytes())
    refused = vggnet(*more)
    assert refused.code == 2
    assert "the dataset has changed" in refused.err
    (folder / "disc" / "new.png").unlink()
    assert vggnet(*more).code == 0


def test_oddities_are_warned_of(vggnet: Command, tmp_path: Path) -> None:
    """Unreadable images end the command with a list of them; with --skip-bad they are a warning."""
    folder = draw(tmp_path / "shapes", 30)
    for name in ("cross", "disc"):
        (folder / name / "broken.jpg").write_bytes(b"\xff\xd8 broken")
    refused = vggnet("train", "--dataset", "shapes", *TINY)
    assert refused.code == 1
    assert "2 of 32 files in shapes cannot be read: cross/broken.jpg (not a PNG" in refused.err
    assert not Path("runs").exists()
    done = vggnet("train", "--dataset", "shapes", "--skip-bad", "--epochs", "0.75", *TINY)
    assert done.code == 0
    assert "warning: 2 of 32 files in shapes cannot be read" in done.err
    assert "warning: 21 training images are fewer than the batch size 96" in done.err
    few = "--epochs 0.75 on 21 images gives 1 step, too few to learn much; --min-steps 300 gives"
    assert few in done.err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ("train --dataset nowhere/images", 2, "unknown dataset 'nowhere/images'"),
        ("train --dataset mnist --image-size 64", 2, "mnist has a fixed size"),
        ("train --dataset . --data-dir .", 2, "leave out --data-dir"),
        ("train --dataset .", 1, "has no images and no data files"),
        ("train --dataset kmnist --no-download", 1, "kmnist is not on this machine: looked in"),
        ("data verify qmnist --no-download", 1, "qmnist is not on this machine"),
        ("evaluate m.pth --dataset emnist-digits --no-download", 1, "m.pth"),
    ],
)
def test_mistakes_get_a_sentence(
    vggnet: Command, monkeypatch: pytest.MonkeyPatch, arguments: str, code: int, words: str
) -> None:
    """A dataset that cannot be loaded gives a message, no traceback and no run folder."""
    monkeypatch.setenv("VGGNET_CACHE_DIR", "cache")
    done = vggnet(*arguments.split())
    assert done.code == code, done.err
    assert words in done.err
    assert not Path("runs").exists()


@pytest.mark.usefixtures("drawing")
def test_class_names_are_printed_as_they_are(vggnet: Command, tmp_path: Path) -> None:
    """Brackets and colons in a class's name are not taken for markup."""
    random = np.random.default_rng(0)
    for number in range(60):
        path = tmp_path / "pets" / ("cat", "dog [old] :dog:")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (8, 8), dtype=np.uint8)).save(path)
    small = ("--stages", "8/8", "--hidden", "8", "--epochs", "1", "--threads", "1")
    assert vggnet("train", "--dataset", "pets/", *small).code == 0
    done = vggnet("evaluate", "pets_vggnet.pth", "--threads", "1")
    assert "dog [old] :dog:" in done.out
    Image.new("L", (8, 8)).save(tmp_path / "pets" / "cat" / "new.png")
    done = vggnet("evaluate", "pets_vggnet.pth", "--dataset", "pets", "--threads", "1")
    assert "pets has changed since the model was trained on it" in done.err
    done = vggnet("evaluate", "pets_vggnet.pth", "--data-dir", ".")
    assert (done.code, "leave out --data-dir" in done.err) == (2, True)
