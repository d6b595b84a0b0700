"""Test-time augmentation: average the predictions for shifted copies of each image."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np

from vggnet.data.dataset import LabeledImages
from vggnet.engine.evaluate import Evaluation
from vggnet.inference.predict import Classifier


def evaluate_tta(classifier: Classifier, examples: LabeledImages, reach: int) -> Evaluation:
    """Evaluate the mean probabilities over all shifts of up to `reach` pixels.

    Costs (2 reach + 1)² times one evaluation. Pixels shifted in repeat the edge.

    Args:
        classifier: The model.
        examples: As `Classifier.evaluate` takes them.
        reach: Pixels, at least 0; 1 averages nine predictions per image.

    Returns:
        Its logits are logarithms of the mean probabilities.
    """
    height, width = examples.images.shape[2:]
    padding = (reach, reach)
    padded = np.pad(examples.images, ((0, 0), (0, 0), padding, padding), mode="edge")
    shifted = [
        classifier.evaluate(
            replace(examples, images=padded[..., top : top + height, left : left + width])
        )
        for top, left in itertools.product(range(2 * reach + 1), repeat=2)
    ]
    mean = np.mean([one.probabilities for one in shifted], axis=0)
    return Evaluation(np.log(np.maximum(mean, np.finfo(np.float32).tiny)), shifted[0].labels)
