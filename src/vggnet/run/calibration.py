"""What the images that a training does not see say of its network."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from vggnet.config import Config
from vggnet.data.batches import Batches, shuffled_order
from vggnet.data.dataset import LabeledImages, hold_out
from vggnet.data.preprocessing import Preprocessing
from vggnet.engine.calibration import MIN_IMAGES, Calibration, fit_calibration
from vggnet.engine.features import trace
from vggnet.engine.schedule import count_steps
from vggnet.engine.typicality import Typicality, fit_typicality, layer_values
from vggnet.errors import DataError
from vggnet.inference.predict import BATCH_SIZE
from vggnet.kernels import accelerate
from vggnet.model.vgg import VGG
from vggnet.run.plan import Plan

SEEN_IMAGES = 5_000
"""Training images for the statistics of what is typical."""

MOST_IMAGES = 5_000
"""Enough for two numbers; running them takes half as long as MNIST's test images."""

_MOST_HELD_OUT = 0.1
"""Largest share of the training images to hold out only for calibration."""


def choose_calibration_images(
    config: Config, train: LabeledImages, validation: LabeledImages | None
) -> tuple[LabeledImages, LabeledImages | None]:
    """Find images to calibrate on, the cheapest first.

    These are the validation images, or those that a training of less than one epoch does not
    reach, or `data.calibration_size` images that are held out.

    Returns:
        The images to train on, and those to calibrate on, if there are any.
    """
    if validation:
        return train, _spread(validation)
    size, batch_size = config.data.calibration_size, config.train.global_batch_size
    steps = count_steps(config.train.epochs, -(-len(train) // batch_size))
    unseen = shuffled_order(config.train.seed, 0, len(train))[steps * batch_size :]
    if len(unseen) and not config.train.minutes:  # which may train for longer
        return train, train.take(np.sort(unseen[:MOST_IMAGES]), f"{train.source}, not trained on")
    if not MIN_IMAGES <= size <= _MOST_HELD_OUT * len(train):
        return train, None
    return hold_out(train, size, config.train.seed)


def _spread(images: LabeledImages) -> LabeledImages:
    """Return at most `MOST_IMAGES` of some images, from all over: folders are sorted by class."""
    return images.take(np.arange(0, len(images), -(-len(images) // MOST_IMAGES)), images.source)


class Trust(NamedTuple):
    """What tells how far a network's predictions can be trusted, as far as there are images."""

    calibration: Calibration | None
    typicality: Typicality | None


def calibrate(network: VGG, plan: Plan, warn: Callable[[str], None]) -> Trust:
    """Compare a trained network on images that it was trained on with others.

    Args:
        network: In evaluation mode.
        plan: Its images.
        warn: Is told what is missing, and why.
    """
    if not plan.calibration:
        warn(
            "the probabilities are not calibrated, and unusual images will not be flagged: every "
            "image was trained on; hold some out with --validation-size or --calibration-size"
        )
        return Trust(None, None)
    logits, held_out = _run(network, plan, plan.calibration)
    labels = plan.calibration.labels.astype(np.int64)
    calibration = typicality = None
    try:
        calibration = fit_calibration(logits, labels)
    except DataError as error:
        warn(f"the probabilities are not calibrated: {error}")
    try:
        count = min(SEEN_IMAGES, plan.total_steps * plan.config.train.global_batch_size)
        first = shuffled_order(plan.config.train.seed, 0, len(plan.train))[:count]
        seen = plan.train.take(np.sort(first), plan.train.source)
        typicality = fit_typicality(
            _run(network, plan, seen)[1], seen.labels.astype(np.int64), held_out
        )
    except DataError as error:
        warn(f"unusual images will not be flagged: {error}")
    return Trust(calibration, typicality)


def _run(
    network: VGG, plan: Plan, images: LabeledImages
) -> tuple[npt.NDArray[np.float32], list[torch.Tensor]]:
    """Return logits (N, num_classes) and the values of each layer (N, F)."""
    batches = Batches(
        images, plan.device, Preprocessing.from_config(plan.config), batch_size=BATCH_SIZE
    )
    replica = accelerate(network, plan.config.train.kernels)
    logits, values = [], []
    with torch.no_grad():
        for batch in batches.in_order():
            found = trace(replica, batch.images)
            logits.append(found.logits.float().cpu())
            values.append(layer_values(found))
    layers = [torch.cat(parts) for parts in zip(*values, strict=True)]
    return torch.cat(logits).numpy(), layers
