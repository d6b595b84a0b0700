"""A model and batches to what it got right and wrong."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional as F

from vggnet.data.batches import Batches
from vggnet.engine.session import Session


@dataclass(frozen=True)
class Score:
    """What tables and curves keep of an evaluation."""

    loss: float
    """Mean cross-entropy in nats, without label smoothing."""
    accuracy: float
    """Share of images classified right, 0 to 1."""


@dataclass(frozen=True)
class Evaluation:
    """Logits and labels of every image, and the figures that follow from them."""

    logits: npt.NDArray[np.float32]
    """(N, num_classes), in the order of the images."""
    labels: npt.NDArray[np.int64]
    """(N,)."""

    @property
    def count(self) -> int:
        """Images evaluated."""
        return len(self.labels)

    @cached_property
    def predictions(self) -> npt.NDArray[np.int64]:
        """The likeliest class of each image, (N,)."""
        found: npt.NDArray[np.int64] = self.logits.argmax(axis=1)
        return found

    @cached_property
    def probabilities(self) -> npt.NDArray[np.float32]:
        """Softmax of the logits, (N, num_classes)."""
        return torch.from_numpy(self.logits).softmax(1).numpy()

    @property
    def correct(self) -> int:
        """Images classified right."""
        return int((self.predictions == self.labels).sum())

    @property
    def accuracy(self) -> float:
        """Share of images classified right, 0 to 1."""
        return self.correct / self.count

    @property
    def accuracy_interval(self) -> tuple[float, float]:
        """95 % interval of the accuracy on images like these."""
        return wilson_interval(self.correct, self.count)

    @cached_property
    def loss(self) -> float:
        """Mean cross-entropy in nats, without label smoothing."""
        logits = torch.from_numpy(self.logits).double()
        return F.cross_entropy(logits, torch.from_numpy(self.labels)).item()

    @cached_property
    def confusion_matrix(self) -> npt.NDArray[np.int64]:
        """Images of class [row] that were taken for class [column]."""
        classes = self.logits.shape[1]
        counts = np.bincount(self.labels * classes + self.predictions, minlength=classes**2)
        return counts.reshape(classes, classes)

    def worst_mistakes(self, most: int) -> npt.NDArray[np.int64]:
        """Return the indices of wrong answers, the surest first, at most `most` of them."""
        wrong = np.flatnonzero(self.predictions != self.labels)
        sureness = self.probabilities[wrong, self.predictions[wrong]]
        return wrong[np.argsort(-sureness, kind="stable")][:most]

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
    """Run a network over every image once, whatever the number of processes.

    Each process fills in the rows of its own share of zeros; their sum is the whole.
    The network's training mode is left as it was.
    """
    training = network.training
    network.eval()
    shares = [network(batch.images).float() for batch in batches.in_order()]
    network.train(training)
    logits = torch.zeros(len(batches.labels), shares[0].shape[1], device=batches.labels.device)
    for number, share in enumerate(shares):
        start = number * batches.batch_size
        logits[start : start + batches.batch_size][session.rank :: session.world_size] = share
    return Evaluation(session.all_reduce(logits).cpu().numpy(), batches.labels.cpu().numpy())


def wilson_interval(successes: int, trials: int, z: float = 1.959964) -> tuple[float, float]:
    """Return Wilson's score interval of a proportion (JASA 22, 1927); z = 1.96 gives 95 %."""
    share = successes / trials
    spread = z * math.sqrt(share * (1 - share) / trials + (z / (2 * trials)) ** 2)
    centre = share + z * z / (2 * trials)
    scale = 1 + z * z / trials
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)
