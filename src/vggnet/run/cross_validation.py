"""Probabilities for every image from networks that were not trained on it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch

from vggnet.config import Config
from vggnet.data.batches import Batches
from vggnet.data.dataset import LabeledImages
from vggnet.data.preprocessing import Preprocessing
from vggnet.engine.device import choose_device
from vggnet.engine.evaluate import evaluate
from vggnet.engine.session import Session
from vggnet.run.in_memory import train_in_memory

_BATCH_SIZE = 128


def cross_validate(
    examples: LabeledImages, config: Config, folds: int
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]]:
    """Train a network for each fold on the others, and predict the fold.

    Args:
        examples: All images; which fold one is in depends on the seed and their number.
        config: Complete, as `fit_to_data` returns it.
        folds: At least 2.

    Yields:
        Positions of a fold's images, (n,), and their probabilities, (n, num_classes).
    """
    device = choose_device(config.train.device)
    preprocessing = Preprocessing.from_config(config)
    order = np.random.default_rng(config.train.seed).permutation(len(examples))
    for number in range(folds):
        held = np.sort(order[number::folds])
        kept = np.setdiff1d(order, held)
        network = train_in_memory(examples.take(kept, examples.source), config, device)
        fold = Batches(
            examples.take(held, examples.source), device, preprocessing, batch_size=_BATCH_SIZE
        )
        with torch.no_grad():
            found = evaluate(network, fold, Session())
        yield held, found.probabilities.astype(np.float32)
