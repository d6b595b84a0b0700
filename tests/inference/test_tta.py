"""Test-time augmentation averages the predictions for all shifted images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import vggnet
from vggnet.data.dataset import Dataset
from vggnet.inference.tta import evaluate_tta


@pytest.mark.parametrize("reach", [0, 1, 2])
def test_it_is_the_mean_of_all_shifts(digit_model: Path, mnist: Dataset, reach: int) -> None:
    """Probabilities equal the mean over images shifted by hand; reach 0 changes nothing."""
    classifier = vggnet.load(digit_model)
    # Without ink within two pixels of the edges, rolling equals shifting.
    rims = mnist.test.images[:60].copy()
    rims[..., 2:-2, 2:-2] = 0
    some = mnist.test.take(np.flatnonzero(~rims.any(axis=(1, 2, 3))), "some")
    assert len(some) > 20
    steps = range(-reach, reach + 1)
    moved = [np.roll(some.images, (down, right), (2, 3)) for down in steps for right in steps]
    expected = np.mean([classifier.predict(one).probabilities for one in moved], axis=0)
    found = evaluate_tta(classifier, some, reach)
    assert np.allclose(found.probabilities, expected, atol=1e-6)
    assert (found.labels == some.labels).all()
