"""What every exported file computes, and the check that it computes the same as the network."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from vggnet.artifacts.model_file import LoadedModel
from vggnet.data.dataset import LabeledImages
from vggnet.engine.calibration import to_probabilities
from vggnet.errors import ExportError
from vggnet.model.folding import fold_batch_norm

Pixels = npt.NDArray[np.uint8]
"""Images as datasets store them, (N, C, H, W)."""

BATCH_SIZES = (1, 2, 7, 256)
"""Sizes that are checked: 1, which tracing may specialize; small; larger than the traced batch."""

TOLERANCE = 1e-4
"""Largest difference of a logit or probability: about 10 times the rounding error of vgg-mini."""

_REFERENCE_BATCH_SIZE = 128

_MOST_BATCHES = 100
"""Batches of each size: small ones show whether a size works, large ones see every image."""


class Outputs(NamedTuple):
    """Outputs for N images."""

    logits: npt.NDArray[np.float32]
    """(N, num_classes)."""
    probabilities: npt.NDArray[np.float32]
    """Of all classes, calibrated if the model is, (N, num_classes)."""


Program = Callable[[Pixels], Outputs]
"""A model that is ready to run, in any runtime."""


class EndToEndModel(nn.Module):
    """A network with its preprocessing and calibrated softmax, so that users need not rebuild them.

    Batch norm is folded. The convolutions are PyTorch's, because the file runs on other
    machines than the compiled kernels.

    Args:
        model: The network and its description.
        dataset: Name of the dataset on which the description's accuracy was measured.
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
        return logits, to_probabilities(logits, self.card.calibration)

    def measure(self, test: LabeledImages) -> None:
        """Put the accuracy and loss of these weights on the test set into the description."""
        accuracy, loss = score(eager_program(self), test)
        figures = {"accuracy": accuracy, "loss": loss, "count": float(len(test))}
        self.card = self.card.model_copy(update={"test": figures})

    def example(self) -> Tensor:
        """Return two black images to trace with; tracing would fix a batch size of one."""
        return torch.zeros(2, *self.card.image_shape, dtype=torch.uint8)


def eager_program(module: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Program:
    """Run a function of tensors on arrays, in PyTorch."""

    @torch.no_grad()
    def run(pixels: Pixels) -> Outputs:
        logits, probabilities = module(torch.tensor(pixels))
        return Outputs(logits.numpy(), probabilities.numpy())

    return run


def run_batches(program: Program, pixels: Pixels, batch_size: int) -> Outputs:
    """Run a program over all images in batches; the last batch may be smaller."""
    parts = [
        program(pixels[start : start + batch_size]) for start in range(0, len(pixels), batch_size)
    ]
    return Outputs(*(np.concatenate(one) for one in zip(*parts, strict=True)))


def score(program: Program, test: LabeledImages) -> tuple[float, float]:
    """Return a program's accuracy, 0 to 1, and its mean cross-entropy in nats."""
    outputs = run_batches(program, test.images, 256)
    correct = outputs.logits.argmax(1) == test.labels
    of_label = outputs.probabilities[np.arange(len(test)), test.labels]
    return float(correct.mean()), float(-np.log(of_label.clip(1e-12)).mean())


def check_parity(exported: Program, network: Program, pixels: Pixels, source: str) -> float:
    """Compare an exported program with the network at several batch sizes.

    The largest batches see all images, the small ones the first of them.

    Args:
        exported: The program, read back from the written file.
        network: The network in PyTorch.
        pixels: Images to compare on.
        source: What to call them.

    Returns:
        The largest difference between two logits or two probabilities.

    Raises:
        ExportError: The network's outputs are not finite, or the program's differ.
    """
    expected = run_batches(network, pixels, _REFERENCE_BATCH_SIZE)
    if not np.isfinite(expected.logits).all():
        raise ExportError("the network's outputs are NaN or infinite; nothing was written")
    classes = expected.logits.argmax(1)
    worst = 0.0
    for batch_size in BATCH_SIZES:
        count = min(_MOST_BATCHES * batch_size, len(pixels))
        found = run_batches(exported, pixels[:count], batch_size)
        difference = max(
            float(np.abs(ours - theirs[:count]).max())
            for ours, theirs in zip(found, expected, strict=True)
        )
        others = int((found.logits.argmax(1) != classes[:count]).sum())
        if not difference <= TOLERANCE or others:  # also true for NaN
            raise ExportError(
                f"the exported program differs from the network at batch size {batch_size}: by up "
                f"to {difference:.2g} (limit {TOLERANCE:.0e}), and in the predicted class of "
                f"{others:,} of {count:,} {source}; nothing was written"
            )
        worst = max(worst, difference)
    return worst


@contextmanager
def quiet() -> Iterator[None]:
    """Hide warnings of the exporters; errors still appear.

    They warn of deprecated calls inside torch, and log that torchvision is not installed,
    which is not needed.
    """
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
