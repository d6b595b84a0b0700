"""`vggnet look`: a page about any VGG."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from conftest import Outcome
from vggnet.config import ModelConfig
from vggnet.model.vgg import build_network

Command = Callable[..., Outcome]


def test_a_page(vggnet: Command, digit_model: Path) -> None:
    """It shows filters, maps, receptive fields and activating images, and loads nothing."""
    done = vggnet("look", digit_model)
    assert (done.code, done.out.strip()) == (0, "look.html"), done.err
    page = Path("look.html").read_text()
    for words in (
        "16 filters",
        "16 channels of 14×14",
        "32 channels of 7×7",
        "maximally activating images",
        "4×4",
        "10×10",
    ):
        assert words in page
    assert "://" not in page
    assert page.count('class="row"') == 2 * 8
    again = vggnet("look", digit_model)
    assert again.code == 0, again.err


def test_weights_of_another_project(vggnet: Command) -> None:
    """A color network without its dataset needs an image, and gets a page without other images."""
    config = ModelConfig(stages=((8,), (8,), (8,)), hidden=(8,), in_channels=3, image_size=64)
    torch.save(build_network(config, 0).state_dict(), "other.pth")
    done = vggnet("look", "other.pth")
    assert done.code == 2
    assert "name an IMAGE" in done.err
    pixels = np.random.default_rng(0).integers(0, 256, (80, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save("photo.png")
    done = vggnet("look", "other.pth", "photo.png", "-o", "page.html")
    assert done.code == 0, done.err
    assert "no maximally activating images" in done.err
    assert "8 filters" in Path("page.html").read_text()


def test_mistakes(vggnet: Command, digit_model: Path) -> None:
    """What is no image is named, and no foreign file is replaced."""
    Path("notes.txt").write_text("no image")
    done = vggnet("look", digit_model, "notes.txt")
    assert done.code == 1
    assert "notes.txt" in done.err
    Path("mine.html").write_text("<p>mine</p>")
    assert vggnet("look", digit_model, "-o", "mine.html").code == 2
