"""Calibrated probabilities are as often right as they say, and no prediction changes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch

from vggnet.engine.calibration import BINS, Reliability, fit_calibration
from vggnet.engine.evaluate import Evaluation
from vggnet.errors import DataError

Labels = npt.NDArray[np.int64]


def draw(count: int, classes: int, seed: int) -> tuple[npt.NDArray[np.float32], Labels]:
    """Return logits whose softmax is right, and labels drawn from it."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(scale=3, size=(count, classes))
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (shares.cumsum(axis=1) > generator.random((count, 1))).argmax(axis=1)
    return logits.astype(np.float32), labels


@pytest.mark.parametrize("classes", [2, 10])
@pytest.mark.parametrize("factor", [0.2, 5.0])
def test_a_wrong_temperature_is_found(classes: int, factor: float) -> None:
    """Logits five times too small or too large get the scale that undoes it."""
    logits, labels = draw(5_000, classes, 0)
    calibration = fit_calibration(factor * logits, labels)
    others, wanted = draw(5_000, classes, 1)
    before = Evaluation(factor * others, wanted)
    after = Evaluation(factor * others, wanted, calibration)
    assert after.reliability.error < 0.03 < before.reliability.error
    assert after.loss < before.loss
    assert after.brier < before.brier
    assert (after.predictions == before.predictions).all()
    assert (after.probabilities.argmax(axis=1) == after.predictions).all()
    assert after.uncalibrated.loss == before.loss


def test_many_logits_are_fitted_in_parts() -> None:
    """The same images thrice, too many logits for one part, give the same two numbers."""
    logits, labels = draw(500, 1_000, 0)
    once = fit_calibration(3 * logits, labels)
    thrice = fit_calibration(np.tile(3 * logits, (3, 1)), np.tile(labels, 3))
    assert thrice.scale == pytest.approx(once.scale, rel=0.05)
    assert thrice.scale == pytest.approx(1 / 3, rel=0.1)


def test_images_without_an_error_give_finite_numbers() -> None:
    """Of 500 images that are all right, 1 in 502 counts as wrong."""
    labels = np.arange(500) % 10
    logits = np.eye(10, dtype=np.float32)[labels]
    found = Evaluation(logits, labels, fit_calibration(logits, labels))
    assert found.probabilities.max() == pytest.approx(1 - 0.9 / 502, abs=1e-4)


@pytest.mark.parametrize(
    ("logits", "labels", "words"),
    [
        (np.eye(10)[np.arange(199) % 10], np.arange(199) % 10, "199 held-out images are fewer"),
        (np.eye(10)[np.full(300, 3)], np.full(300, 3), "of one class"),
        (np.ones((300, 10)), np.arange(300) % 10, "the same for all classes"),
        (np.full((300, 10), np.nan), np.arange(300) % 10, "not finite"),
    ],
)
def test_images_that_decide_nothing_are_refused(
    logits: npt.NDArray[np.float64], labels: Labels, words: str
) -> None:
    """The message says why there is no calibration."""
    with pytest.raises(DataError, match=words):
        fit_calibration(logits.astype(np.float32), labels)


def test_the_error_by_hand() -> None:
    """It is the mean gap of bins of equally many images, the least confident first."""
    generator = np.random.default_rng(0)
    confidence = generator.random(30 * BINS)
    correct = generator.random(30 * BINS) < 0.7
    bins = np.argsort(confidence).reshape(BINS, 30)
    gaps = confidence[bins].mean(axis=1) - correct[bins].mean(axis=1)
    assert Reliability(confidence, correct).error == pytest.approx(np.abs(gaps).mean())


def test_the_interval_allows_for_chance() -> None:
    """The error of perfect probabilities is above 0, and the interval reaches down to it."""
    logits, labels = draw(2_000, 10, 2)
    found = Evaluation(logits, labels).reliability
    low, high = found.error_interval()
    assert low < 0.005 < found.error
    assert high < 0.05
    shifted = Reliability(found.confidence * 0.8, found.correct)
    assert shifted.error_interval()[0] > 0.05


def test_calibration_on_tensors_keeps_rows_apart() -> None:
    """A row's probabilities do not depend on the others in its batch."""
    logits, labels = draw(300, 3, 3)
    calibration = fit_calibration(logits, labels)
    whole = calibration.adjust(torch.from_numpy(logits))
    assert torch.equal(whole[7:8], calibration.adjust(torch.from_numpy(logits[7:8])))
