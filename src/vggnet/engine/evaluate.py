"""Evaluate a network: loss, accuracy, and its errors."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional as F

from vggnet.data.batches import Batches
from vggnet.data.dataset import is_imbalanced
from vggnet.engine.calibration import Calibration, Reliability, to_probabilities
from vggnet.engine.session import Session


@dataclass(frozen=True)
class Score:
    """The two figures of an evaluation that tables and curves show."""

    loss: float
    """Mean cross-entropy in nats, without label smoothing."""
    accuracy: float
    """Fraction of images classified correctly."""


@dataclass(frozen=True)
class Evaluation:
    """Logits and labels of all images, and the figures computed from them."""

    logits: npt.NDArray[np.float32]
    """(N, num_classes), in the order of the images."""
    labels: npt.NDArray[np.int64]
    """(N,)."""
    calibration: Calibration | None = None
    """How the logits become probabilities; by default through a plain softmax."""

    @property
    def uncalibrated(self) -> Evaluation:
        """The same without calibration."""
        return replace(self, calibration=None)

    @property
    def count(self) -> int:
        """Number of images."""
        return len(self.labels)

    @cached_property
    def predictions(self) -> npt.NDArray[np.int64]:
        """Most probable class of each image, (N,)."""
        found: npt.NDArray[np.int64] = self.logits.argmax(axis=1)
        return found

    @cached_property
    def probabilities(self) -> npt.NDArray[np.float32]:
        """Calibrated probabilities, (N, num_classes)."""
        return to_probabilities(torch.from_numpy(self.logits), self.calibration).numpy()

    @property
    def correct(self) -> int:
        """Number of images classified correctly."""
        return int((self.predictions == self.labels).sum())

    @property
    def accuracy(self) -> float:
        """Fraction of images classified correctly."""
        return self.correct / self.count

    @property
    def is_imbalanced(self) -> bool:
        """Whether accuracy hides how some classes do."""
        return is_imbalanced(self.confusion_matrix.sum(axis=1))

    @property
    def balanced_accuracy(self) -> float:
        """Mean recall of the classes that have images, 0 to 1."""
        counts = self.confusion_matrix.sum(axis=1)
        return float((self.confusion_matrix.diagonal()[counts > 0] / counts[counts > 0]).mean())

    @property
    def macro_f1(self) -> float:
        """Mean F1 of the classes that have images or are predicted, 0 to 1."""
        matrix = self.confusion_matrix
        sums = matrix.sum(axis=0) + matrix.sum(axis=1)
        return float((2 * matrix.diagonal()[sums > 0] / sums[sums > 0]).mean())

    @property
    def accuracy_interval(self) -> tuple[float, float]:
        """95 % confidence interval of the accuracy."""
        return wilson_interval(self.correct, self.count)

    def describe(self) -> str:
        """Return the accuracy with its interval, for people."""
        low, high = self.accuracy_interval
        return (
            f"accuracy {100 * self.accuracy:.2f} % ({self.correct:,} of {self.count:,}; "
            f"95 % interval {100 * low:.2f} to {100 * high:.2f} %)"
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.describe()}, loss {self.loss:.4f})"

    @cached_property
    def loss(self) -> float:
        """Mean negative log-likelihood in nats, without label smoothing."""
        logits = torch.from_numpy(self.logits).double()
        if self.calibration:
            logits = self.calibration.adjust(logits)
        return F.cross_entropy(logits, torch.from_numpy(self.labels)).item()

    @cached_property
    def brier(self) -> float:
        """Brier score: squared errors of an image's probabilities, summed; 0 to 2, 0 is best."""
        of_label = self.probabilities[np.arange(self.count), self.labels]
        return float((np.square(self.probabilities).sum(axis=1) - 2 * of_label + 1).mean())

    @cached_property
    def reliability(self) -> Reliability:
        """How sure the predictions are, and how often they are right."""
        return Reliability(self.probabilities.max(axis=1), self.predictions == self.labels)

    @cached_property
    def confusion_matrix(self) -> npt.NDArray[np.int64]:
        """Number of images of class [row] that were classified as [column]."""
        classes = self.logits.shape[1]
        counts = np.bincount(self.labels * classes + self.predictions, minlength=classes**2)
        return counts.reshape(classes, classes)

    def worst_mistakes(self, most: int) -> npt.NDArray[np.int64]:
        """Return the indices of up to `most` errors, the most confident first."""
        wrong = np.flatnonzero(self.predictions != self.labels)
        confidence = self.probabilities[wrong, self.predictions[wrong]]
        return wrong[np.argsort(-confidence, kind="stable")][:most]

    def per_class(self, classes: tuple[str, ...]) -> list[dict[str, str | int | float]]:
        """Return each class's name, count, precision, recall and F1 (0 where undefined)."""
        matrix = self.confusion_matrix
        rows: list[dict[str, str | int | float]] = []
        for index, name in enumerate(classes):
            right = int(matrix[index, index])
            count, predicted = int(matrix[index].sum()), int(matrix[:, index].sum())
            rows.append(
                {
                    "class": name,
                    "count": count,
                    "precision": right / predicted if predicted else 0.0,
                    "recall": right / count if count else 0.0,
                    "f1": 2 * right / (count + predicted) if count + predicted else 0.0,
                }
            )
        return rows


@torch.no_grad()
def evaluate(network: nn.Module, batches: Batches, session: Session) -> Evaluation:
    """Run a network on every image once, with any number of processes.

    Each process fills in its own rows of a matrix of zeros; their sum is the result. The
    network's training mode is restored.
    """
    training = network.training
    network.eval()
    parts = [network(batch.images).float() for batch in batches.in_order()]
    network.train(training)
    logits = torch.zeros(len(batches.labels), parts[0].shape[1], device=batches.labels.device)
    for number, part in enumerate(parts):
        start = number * batches.batch_size
        logits[start : start + batches.batch_size][session.rank :: session.world_size] = part
    return Evaluation(session.all_reduce(logits).cpu().numpy(), batches.labels.cpu().numpy())


def wilson_interval(successes: int, trials: int, z: float = 1.959964) -> tuple[float, float]:
    """Return Wilson's score interval of a proportion (JASA 22, 1927); z = 1.96 means 95 %."""
    rate = successes / trials
    spread = z * math.sqrt(rate * (1 - rate) / trials + (z / (2 * trials)) ** 2)
    center = rate + z * z / (2 * trials)
    scale = 1 + z * z / trials
    return max(0.0, (center - spread) / scale), min(1.0, (center + spread) / scale)
