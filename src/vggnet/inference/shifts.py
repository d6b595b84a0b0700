"""Test-time shifts: a picture's answer as the mean of the answers to itself moved about."""

from __future__ import annotations

import numpy as np

from vggnet.data.dataset import LabeledImages
from vggnet.engine.evaluate import Evaluation
from vggnet.inference.predict import Classifier


def evaluate_shifted(classifier: Classifier, pictures: LabeledImages, reach: int) -> Evaluation:
    """Evaluate with the mean probabilities over all shifts of up to `reach` pixels.

    It takes (2 reach + 1)² times the work of one answer. Pixels that come in from outside
    are copies of the edge's.

    Args:
        classifier: Answers.
        pictures: As `Classifier.evaluate` takes them.
        reach: At least 0; 1 gives nine answers a picture.

    Returns:
        The logits are logarithms of the mean probabilities.
    """
    images = pictures.images
    height, width = images.shape[2:]
    padded = np.pad(images, ((0, 0), (0, 0), (reach, reach), (reach, reach)), mode="edge")
    total = np.zeros((len(images), len(classifier.classes)), np.float32)
    labels = pictures.labels.astype(np.int64)
    for top in range(2 * reach + 1):
        for left in range(2 * reach + 1):
            moved = np.ascontiguousarray(padded[..., top : top + height, left : left + width])
            part = LabeledImages(moved, pictures.labels, pictures.num_classes, pictures.source)
            total += classifier.evaluate(part).probabilities
    mean = total / (2 * reach + 1) ** 2
    return Evaluation(np.log(np.maximum(mean, np.finfo(np.float32).tiny)), labels)
