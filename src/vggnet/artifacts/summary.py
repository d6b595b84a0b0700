"""An evaluation as plain values, for `evaluate --json` and test.json."""

from __future__ import annotations

from typing import Any

from vggnet.engine.evaluate import Evaluation

_MOST_CLASSES = 1_000
"""Classes up to which the whole confusion matrix is written: it grows with their square."""


def headline(evaluation: Evaluation) -> dict[str, float]:
    """Return the three figures that a model file contains."""
    return {
        "accuracy": evaluation.accuracy,
        "loss": evaluation.loss,
        "count": evaluation.count,
    }


def describe_probabilities(evaluation: Evaluation) -> dict[str, Any]:
    """Return the negative log-likelihood, the Brier score, and the calibration error (0 to 1)."""
    return {
        "loss": evaluation.loss,
        "brier": evaluation.brier,
        "calibration_error": evaluation.reliability.error,
        "calibration_error_interval_95": list(evaluation.reliability.error_interval()),
    }


def _describe_confusions(evaluation: Evaluation) -> dict[str, Any]:
    """Return the confusion matrix, or of more than 1,000 classes the errors in it.

    These are the numbers of the true and the predicted class and the images of each kind of
    error, the most frequent first.
    """
    if evaluation.logits.shape[1] <= _MOST_CLASSES:
        return {"confusion_matrix": evaluation.confusion_matrix.tolist()}
    columns = evaluation.confused_pairs.T.tolist()
    pairs = dict(zip(("true", "predicted", "images"), columns, strict=True))
    return {"confusion_matrix": None, "confused_pairs": pairs}


def summarize(evaluation: Evaluation, classes: tuple[str, ...]) -> dict[str, Any]:
    """Return accuracy (0 to 1) with its 95 % interval, scores, and figures per class."""
    return {
        "accuracy": evaluation.accuracy,
        "accuracy_interval_95": list(evaluation.accuracy_interval),
        "correct": evaluation.correct,
        "count": evaluation.count,
        "balanced_accuracy": evaluation.balanced_accuracy,
        "macro_f1": evaluation.macro_f1,
        **describe_probabilities(evaluation),
        "calibration": calibration.model_dump()
        if (calibration := evaluation.calibration)
        else None,
        "uncalibrated": describe_probabilities(evaluation.uncalibrated),
        "classes": list(classes),
        "per_class": evaluation.per_class(classes),
        **_describe_confusions(evaluation),
    }
