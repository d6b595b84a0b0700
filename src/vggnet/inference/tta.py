"""Test-time shifts: an image's answer as the mean of the answers to itself moved about."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np

from vggnet.data.dataset import LabeledImages
from vggnet.engine.evaluate import Evaluation
from vggnet.inference.predict import Classifier


def evaluate_tta(classifier: Classifier, examples: LabeledImages, reach: int) -> Evaluation:
    """Evaluate with the mean probabilities over all shifts of up to `reach` pixels.

    It takes (2 reach + 1)² times the work of one answer. Pixels that come in from outside
    are copies of the edge's.

    Args:
        classifier: Answers.
        examples: As `Classifier.evaluate` takes them.
        reach: At least 0; 1 gives nine answers an image.

    Returns:
        The logits are logarithms of the mean probabilities.
    """
    height, width = examples.images.shape[2:]
    rim = (reach, reach)
    padded = np.pad(examples.images, ((0, 0), (0, 0), rim, rim), mode="edge")
    answers = [
        classifier.evaluate(
            replace(examples, images=padded[..., top : top + height, left : left + width])
        )
        for top, left in itertools.product(range(2 * reach + 1), repeat=2)
    ]
    mean = np.mean([one.probabilities for one in answers], axis=0)
    return Evaluation(np.log(np.maximum(mean, np.finfo(np.float32).tiny)), answers[0].labels)
