"""Class names in any script are drawn, or replaced, without a warning of matplotlib."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vggnet.artifacts.plots import render_confusion_matrix, render_mistakes
from vggnet.engine.evaluate import Evaluation


@pytest.mark.usefixtures("drawing")
@pytest.mark.parametrize("classes", [("零", "９", "a"), ("😀", "cat", "\u0378")])
def test_names_that_fonts_may_lack(tmp_path: Path, classes: tuple[str, ...]) -> None:
    """A font of the system draws them, or else a number stands for the class."""
    logits = 5 * np.eye(3, dtype=np.float32)[[0, 1, 2, 1]]
    evaluation = Evaluation(logits, np.array([0, 1, 2, 0]))
    images = np.zeros((4, 1, 9, 9), np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        render_confusion_matrix(tmp_path / "matrix.png", evaluation, classes)
        render_mistakes(tmp_path / "mistakes.png", images, evaluation, classes)
    for name in ("matrix", "mistakes"):
        with Image.open(tmp_path / f"{name}.png") as image:
            assert min(image.size) > 100
