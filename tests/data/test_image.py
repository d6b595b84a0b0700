"""Images of anything are fitted to the network, for training as for use."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vggnet.data.collection import Request
from vggnet.data.decode import load_image
from vggnet.data.files import open_file
from vggnet.data.image import fit_image
from vggnet.data.sources import load_collection
from vggnet.inference.reading import Reading, decoding_side, see


@pytest.mark.parametrize("channels", [1, 3])
def test_other_images_are_fitted(channels: int) -> None:
    """A wide image keeps its shape, and what is missing is filled with its edges' colour."""
    image = np.full((50, 100, 3), 200, np.uint8)
    image[10:40, 20:80] = (10, 20, 30)
    fitted = fit_image(image, channels, 28, 28)
    assert fitted.shape == (channels, 28, 28)
    assert (fitted[:, 0] == 200).all()
    assert (fitted[:, 13, 14] < 60).all()


def test_what_is_trained_on_is_what_is_seen_later(tmp_path: Path) -> None:
    """A file gives the same pixels to training and to prediction: any shape, kind and size."""
    folder = tmp_path / "class"
    folder.mkdir()
    dice = np.random.default_rng(0)
    rough = Image.fromarray(dice.integers(0, 256, (9, 14, 3), np.uint8))
    rough.resize((700, 300), Image.Resampling.BICUBIC).save(folder / "wide.jpg")
    rough.resize((90, 200), Image.Resampling.BICUBIC).save(folder / "tall.png")
    rough.convert("L").save(folder / "small.webp", lossless=True)
    rough.convert("RGBA").rotate(30, expand=True).save(folder / "clear.png")
    trained = load_collection(tmp_path, Request()).images
    shape = (3, 32, 32)
    side = decoding_side(Reading.FITTED, shape)
    for images, path in zip(sorted(trained.tolist()), _sorted(folder, shape, side), strict=True):
        assert images == path


def _sorted(folder: Path, shape: tuple[int, int, int], side: int | None) -> list[object]:
    return sorted(
        see(load_image(open_file(path), side=side), Reading.FITTED, shape)[0].tolist()
        for path in folder.iterdir()
    )
