"""The page prepares drawings as Python does."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from drawing_styles import STYLES
from drawing_styles import draw as draw_on_paper
from scipy import ndimage

from handwriting import CHROMIUM, chromium
from vggnet.data.dataset import Dataset
from vggnet.inference.reading import Reading, see
from vggnet.page.bundle import bundle

pytest.importorskip("playwright", reason="playwright is not installed")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium here")

DRAWINGS = 300

SEE = """([image, width, height, drawn, shape]) => {
  const data = Uint8Array.from(atob(image), (one) => one.charCodeAt(0));
  const found = modules_prepare.see({ width, height, data }, drawn, shape);
  return found && [...found];
}"""

Pixels = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def page() -> Iterator[Any]:
    """An empty page with the worker's modules."""
    with chromium() as browser:
        page = browser.new_page()
        page.add_script_tag(content=bundle("worker"))
        yield page


def see_on(page: Any, image: Pixels, drawn: bool, shape: tuple[int, int, int]) -> Pixels | None:
    """Prepare an image, (H, W) or (H, W, 3), in the browser."""
    color = np.broadcast_to(np.atleast_3d(image), (*image.shape[:2], 3))
    opaque = np.full((*image.shape[:2], 1), 255, np.uint8)
    data = b64encode(np.concatenate([color, opaque], 2).tobytes()).decode()
    found = page.evaluate(SEE, [data, image.shape[1], image.shape[0], drawn, shape])
    return None if found is None else np.array(found, np.uint8).reshape(shape)


def test_drawings_become_the_same(page: Any, mnist: Dataset) -> None:
    """Of 300 drawings of all kinds, all 784 pixels are the same, within one grey level."""
    shape = (1, 28, 28)
    for at, digit in enumerate(mnist.test.images[:DRAWINGS, 0]):
        image = draw_on_paper(STYLES[at % len(STYLES)], digit, at)
        expected = see(image, Reading.DRAWN, shape)
        found = see_on(page, image, True, shape)
        assert (found is None) == (not expected)
        if found is not None:
            assert np.abs(found.astype(int) - expected[0]).max() <= 1


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 40, 40), (3, 224, 224)])
def test_other_images_are_fitted_the_same(page: Any, shape: tuple[int, int, int]) -> None:
    """In grey and color, enlarged and reduced, wide and high: within two grey levels.

    Pillow 13 sometimes scales columns before rows, and rounds in between.
    """
    random = np.random.default_rng(0)
    for height, width in ((50, 90), (300, 120), (7, 7), (1, 40), shape[1:]):
        noise = random.uniform(0, 255, (height, width, 3))
        image = ndimage.gaussian_filter(noise, (2, 2, 0), mode="nearest").astype(np.uint8)
        found = see_on(page, image, False, shape)
        assert found is not None
        expected = see(image, Reading.FITTED, shape)[0]
        assert np.abs(found.astype(int) - expected).max() <= 2


def test_nothing_is_found_on_empty_paper(page: Any) -> None:
    """White, black and noise are no drawings."""
    noise = np.random.default_rng(0).integers(200, 210, (100, 100), dtype=np.uint8)
    for image in (np.full((60, 80), 255, np.uint8), np.zeros((28, 28), np.uint8), noise):
        assert see(image, Reading.DRAWN, (1, 28, 28)) == []
        assert see_on(page, image, True, (1, 28, 28)) is None
