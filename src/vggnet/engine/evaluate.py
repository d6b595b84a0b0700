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
from vggnet.engine.calibration import Calibration, Reliability, rows_at_once, to_probabilities
from vggnet.engine.session import Session

Counts = npt.NDArray[np.int64]


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
        found = np.empty_like(self.logits)
        for rows in rows_at_once(*self.logits.shape):
            logits = torch.from_numpy(self.logits[rows])
            found[rows] = to_probabilities(logits, self.calibration).numpy()
        return found

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
        images, _, _ = self._counts
        return is_imbalanced(images)

    @property
    def balanced_accuracy(self) -> float:
        """Mean recall of the classes that have images, 0 to 1."""
        images, _, right = self._counts
        return float((right[images > 0] / images[images > 0]).mean())

    @property
    def macro_f1(self) -> float:
        """Mean F1 of the classes that have images or are predicted, 0 to 1."""
        images, predicted, right = self._counts
        sums = images + predicted
        return float((2 * right[sums > 0] / sums[sums > 0]).mean())

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
        total = 0.0
        for rows in rows_at_once(*self.logits.shape):
            logits = torch.from_numpy(self.logits[rows]).double()
            if self.calibration:
                logits = self.calibration.adjust(logits)
            labels = torch.from_numpy(self.labels[rows])
            total += F.cross_entropy(logits, labels, reduction="sum").item()
        return total / self.count

    @cached_property
    def brier(self) -> float:
        """Brier score: squared errors of an image's probabilities, summed; 0 to 2, 0 is best."""
        of_label = self.probabilities[np.arange(self.count), self.labels]
        parts = [
            np.square(self.probabilities[rows]).sum(axis=1)
            for rows in rows_at_once(*self.logits.shape)
        ]
        return float((np.concatenate(parts) - 2 * of_label + 1).mean())

    @cached_property
    def reliability(self) -> Reliability:
        """How sure the predictions are, and how often they are right."""
        return Reliability(self.probabilities.max(axis=1), self.predictions == self.labels)

    @cached_property
    def confusion_matrix(self) -> Counts:
        """Number of images of class [row] that were classified as [column].

        It takes 8 bytes × num_classes²; `confused_pairs` does not grow with the classes.
        """
        classes = self.logits.shape[1]
        counts = np.bincount(self.labels * classes + self.predictions, minlength=classes**2)
        return counts.reshape(classes, classes)

    @cached_property
    def confused_pairs(self) -> Counts:
        """True class, predicted class and number of images of each kind of error, (M, 3).

        The most frequent come first. There are at most as many as errors.
        """
        classes = self.logits.shape[1]
        wrong = self.predictions != self.labels
        kinds = self.labels[wrong] * classes + self.predictions[wrong]
        found, counts = np.unique(kinds, return_counts=True)
        order = np.argsort(-counts, kind="stable")
        return np.stack([*np.divmod(found[order], classes), counts[order]], axis=1)

    @cached_property
    def _counts(self) -> tuple[Counts, Counts, Counts]:
        """Images of each class, images classified as it, and those of both, (num_classes,) each."""
        right = self.labels[self.predictions == self.labels]
        images, predicted, both = (
            np.bincount(one, minlength=self.logits.shape[1])
            for one in (self.labels, self.predictions, right)
        )
        return images, predicted, both

    def worst_mistakes(self, most: int) -> npt.NDArray[np.int64]:
        """Return the indices of up to `most` errors, the most confident first."""
        wrong = np.flatnonzero(self.predictions != self.labels)
        confidence = self.probabilities[wrong, self.predictions[wrong]]
        return wrong[np.argsort(-confidence, kind="stable")][:most]

    def per_class(self, classes: tuple[str, ...]) -> list[dict[str, str | int | float]]:
        """Return each class's name, count, precision, recall and F1 (0 where undefined)."""
        columns = (one.tolist() for one in self._counts)
        return [
            {
                "class": name,
                "count": count,
                "precision": right / predicted if predicted else 0.0,
                "recall": right / count if count else 0.0,
                "f1": 2 * right / (count + predicted) if count + predicted else 0.0,
            }
            for name, count, predicted, right in zip(classes, *columns, strict=True)
        ]


@torch.no_grad()
def evaluate(network: nn.Module, batches: Batches, session: Session) -> Evaluation:
    """Run a network on every image once, with any number of processes.

    Each process fills in its own rows of a matrix of zeros; their sum is the result. The
    network's training mode is restored.
    """
    training = network.training
    network.eval()
    logits = torch.empty(0)
    for number, batch in enumerate(batches.in_order()):
        part, start = network(batch.images).float(), number * batches.batch_size
        if not number:
            logits = part.new_zeros(len(batches.labels), part.shape[1])
        logits[start : start + batches.batch_size][session.rank :: session.world_size] = part
    network.train(training)
    return Evaluation(session.all_reduce(logits).cpu().numpy(), batches.labels.cpu().numpy())


def wilson_interval(successes: int, trials: int, z: float = 1.959964) -> tuple[float, float]:
    """Return Wilson's score interval of a proportion (JASA 22, 1927); z = 1.96 means 95 %."""
    rate = successes / trials
    spread = z * math.sqrt(rate * (1 - rate) / trials + (z / (2 * trials)) ** 2)
    center = rate + z * z / (2 * trials)
    scale = 1 + z * z / trials
    return max(0.0, (center - spread) / scale), min(1.0, (center + spread) / scale)
