"""Predictions for every image from networks that were not trained on it, to find wrong labels."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch

from vggnet.config import Config, DataConfig
from vggnet.data.audit import AuditedImages, LabelIssue, rank_label_issues
from vggnet.data.batches import Batches
from vggnet.data.dataset import Dataset, LabeledImages
from vggnet.data.preprocessing import Preprocessing
from vggnet.engine.device import choose_device
from vggnet.engine.evaluate import evaluate
from vggnet.engine.session import Session
from vggnet.recipes import resolve_config
from vggnet.run.in_memory import train_in_memory
from vggnet.run.preflight import fit_to_data

_BATCH_SIZE = 128

_FOLDS = 4
_STEPS = 500
"""Training steps of each fold, at least: what a few thousand images need."""


def find_label_issues(
    found: AuditedImages, data: DataConfig, device: str = "cpu"
) -> list[LabelIssue]:
    """Cross-validate networks, and rank the images that they contradict.

    Args:
        found: All images of a dataset, with at least two classes.
        data: How they were loaded.
        device: "auto", "cpu", "cuda" and so on.
    """
    examples = found.examples
    dataset = Dataset(examples.source, found.classes, examples, examples, "")
    # A fold must never have fewer images than a batch.
    size = min(_BATCH_SIZE, max(2, len(examples) // 8))
    epochs = max(1.0, _STEPS * size / (len(examples) * (_FOLDS - 1) / _FOLDS))
    train = {"epochs": epochs, "global_batch_size": size, "device": device, "growth_fraction": 0.0}
    config = fit_to_data(
        resolve_config({"data": data.model_dump(), "train": train}), dataset, Session()
    )
    probabilities = np.zeros((len(examples), len(found.classes)), np.float32)
    for held, predicted in cross_validate(examples, config, _FOLDS):
        probabilities[held] = predicted
    return rank_label_issues(probabilities, examples.labels)


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
