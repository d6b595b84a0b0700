"""What every exported file computes: uint8 images to logits and probabilities."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from vggnet.artifacts.model_file import LoadedModel
from vggnet.data.dataset import LabeledImages
from vggnet.model.folding import fold_batch_norm

Pixels = npt.NDArray[np.uint8]
"""Images as datasets store them, (N, C, H, W)."""


class Answers(NamedTuple):
    """What a program says of N images."""

    logits: npt.NDArray[np.float32]
    """(N, num_classes)."""
    probabilities: npt.NDArray[np.float32]
    """Their softmax, (N, num_classes)."""


Program = Callable[[Pixels], Answers]
"""A model that is ready to run, whatever runs it."""


class ExportModule(nn.Module):
    """A network with everything around it that a user would otherwise have to rebuild.

    Padding and normalization come before it, the softmax after it; batch norm is folded.
    The convolutions are torch's, never the compiled kernels: the file runs elsewhere.

    Args:
        model: The network and its description.
        dataset: Name of the dataset that the description's figures are of, if any.
    """

    def __init__(self, model: LoadedModel, dataset: str | None = None) -> None:
        super().__init__()
        self.network = fold_batch_norm(model.network)
        self.card = model.card
        self.preprocessing = model.preprocessing
        self.dataset = dataset
        self.eval()

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Map pixels (N, C, H, W), uint8, to logits and probabilities, (N, num_classes) each."""
        logits = self.network(self.preprocessing.on(pixels.device)(pixels))
        return logits, logits.softmax(1)

    def measure(self, test: LabeledImages) -> None:
        """Put these very weights' figures on the test set into the description."""
        accuracy, loss = score(eager_program(self), test)
        figures = {"accuracy": accuracy, "loss": loss, "count": float(len(test))}
        self.card = self.card.model_copy(update={"test": figures})

    def example(self) -> Tensor:
        """Return pixels to trace with: two images, for a batch of one would stay one."""
        return torch.zeros(2, *self.card.image_shape, dtype=torch.uint8)


def eager_program(module: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Program:
    """Run what maps tensors to tensors on arrays."""

    @torch.no_grad()
    def run(pixels: Pixels) -> Answers:
        logits, probabilities = module(torch.tensor(pixels))
        return Answers(logits.numpy(), probabilities.numpy())

    return run


def answer_all(program: Program, pixels: Pixels, batch_size: int) -> Answers:
    """Run a program over all images, `batch_size` at a time; the last batch may be short."""
    parts = [
        program(pixels[start : start + batch_size]) for start in range(0, len(pixels), batch_size)
    ]
    return Answers(*(np.concatenate(one) for one in zip(*parts, strict=True)))


def score(program: Program, test: LabeledImages) -> tuple[float, float]:
    """Return a program's accuracy, 0 to 1, and its mean cross-entropy in nats."""
    answers = answer_all(program, test.images, 256)
    right = answers.logits.argmax(1) == test.labels
    of_true = answers.probabilities[np.arange(len(test)), test.labels]
    return float(right.mean()), float(-np.log(of_true.clip(1e-12)).mean())
