"""Figures of an evaluation, against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from conftest import make_batches
from vggnet.config import ModelConfig
from vggnet.data.dataset import LabeledImages
from vggnet.engine.calibration import Calibration
from vggnet.engine.evaluate import Evaluation, evaluate, wilson_interval
from vggnet.engine.session import Session
from vggnet.model.vgg import build_network

HAND = Evaluation(
    logits=np.array([[2, 1, 0], [0, 3, 1], [0, 3, 1], [1, 0, 5], [4, 0, 0]], np.float32),
    labels=np.array([0, 1, 2, 2, 1]),
)


def test_figures_by_hand() -> None:
    """Accuracy, confusion matrix, precision, recall, F1 and mistakes of five answers."""
    assert (HAND.count, HAND.correct, HAND.accuracy) == (5, 3, 0.6)
    assert HAND.confusion_matrix.tolist() == [[1, 0, 0], [1, 1, 0], [0, 1, 1]]
    rows = HAND.per_class(("a", "b", "c"))
    assert [row["count"] for row in rows] == [1, 2, 2]
    assert [row["precision"] for row in rows] == [0.5, 0.5, 1.0]
    assert [row["recall"] for row in rows] == [1.0, 0.5, 0.5]
    assert rows[1]["f1"] == pytest.approx(0.5)
    assert HAND.worst_mistakes(9).tolist() == [4, 2]
    assert HAND.worst_mistakes(1).tolist() == [4]
    logits = torch.tensor(HAND.logits)
    expected = torch.nn.functional.cross_entropy(logits, torch.tensor(HAND.labels))
    assert HAND.loss == pytest.approx(expected.item(), rel=1e-6)


def test_a_class_without_images_has_zeros() -> None:
    """What is undefined is 0 and not an error."""
    found = Evaluation(np.array([[1, 0, 0]], np.float32), np.array([0]))
    assert [row["f1"] for row in found.per_class(("a", "b", "c"))] == [1.0, 0.0, 0.0]


def test_confused_pairs_are_the_errors_in_the_matrix() -> None:
    """The most frequent come first; without errors there are none."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 7, 500)
    found = Evaluation(generator.random((500, 7), np.float32), labels)
    errors = found.confusion_matrix - np.diag(found.confusion_matrix.diagonal())
    true, predicted, images = found.confused_pairs.T
    assert (np.diff(images) <= 0).all()
    assert (images == errors[true, predicted]).all()
    assert images.sum() == errors.sum()
    assert Evaluation(np.eye(3, dtype=np.float32), np.arange(3)).confused_pairs.shape == (0, 3)


def test_figures_of_many_classes_need_no_matrix() -> None:
    """That of 100,000 classes would take 80 GB."""
    logits = np.zeros((4, 100_000), np.float32)
    logits[np.arange(4), [7, 7, 99_999, 0]] = 1
    found = Evaluation(logits, np.array([7, 8, 99_999, 8]))
    assert (found.balanced_accuracy, found.is_imbalanced) == (2 / 3, False)
    assert found.macro_f1 == pytest.approx((2 / 3 + 1) / 4)
    rows = found.per_class(tuple(map(str, range(100_000))))
    assert rows[7] == {"class": "7", "count": 1, "precision": 0.5, "recall": 1.0, "f1": 2 / 3}
    assert found.confused_pairs.tolist() == [[8, 0, 1], [8, 7, 1]]


@pytest.mark.parametrize("calibration", [None, Calibration(scale=2, curvature=0.1, images=9)])
def test_many_logits_are_computed_in_parts(calibration: Calibration | None) -> None:
    """Loss, probabilities and Brier score of two million logits are those of each image."""
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(1_000, 2_000)).astype(np.float32)
    found = Evaluation(logits, np.arange(1_000), calibration)
    some = [0, 1, 523, 524, 525, 999]
    alone = [Evaluation(logits[[at]], np.array([at]), calibration) for at in range(1_000)]
    for at in some:
        assert np.allclose(found.probabilities[at], alone[at].probabilities[0], rtol=1e-5)
    assert found.loss == pytest.approx(np.mean([one.loss for one in alone]))
    assert found.brier == pytest.approx(np.mean([one.brier for one in alone]), rel=1e-5)


@pytest.mark.parametrize("count", [1, 2, 127, 128, 129, 300])
def test_every_image_is_counted_once(few: LabeledImages, count: int) -> None:
    """At any size the logits are those of one pass over all images, in order."""
    examples = few.take(np.arange(count), "some")
    network = build_network(ModelConfig(), 0).train()
    parts = make_batches(examples)
    found = evaluate(network, parts, Session())
    assert network.training
    whole = next(make_batches(examples, batch_size=count).in_order())
    with torch.no_grad():
        expected = network.eval()(whole.images)
    assert found.logits.shape == (count, 10)
    assert np.allclose(found.logits, expected, atol=1e-5)
    assert (found.labels == examples.labels).all()


@given(st.integers(1, 100_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_interval_holds_the_share(counts: tuple[int, int]) -> None:
    """The interval lies in [0, 1] and around the share."""
    right, trials = counts
    low, high = wilson_interval(right, trials)
    assert 0 <= low <= right / trials + 1e-12
    assert right / trials - 1e-12 <= high <= 1


def test_wilson_interval_by_the_book() -> None:
    """81 of 263, the example of Newcombe (Stat. Med. 17, 1998, table I): 0.2553 to 0.3662."""
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
