"""Images that a training does not see, to calibrate its network on."""

from __future__ import annotations

import numpy as np

from vggnet.config import Config
from vggnet.data.batches import shuffled_order
from vggnet.data.dataset import LabeledImages, hold_out
from vggnet.engine.calibration import MIN_IMAGES
from vggnet.engine.schedule import count_steps

MOST_IMAGES = 5_000
"""More images hardly change the fit: benchmarks/results/calibration.md."""

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
    if len(unseen):
        return train, train.take(np.sort(unseen[:MOST_IMAGES]), f"{train.source}, not trained on")
    if not MIN_IMAGES <= size <= _MOST_HELD_OUT * len(train):
        return train, None
    return hold_out(train, size, config.train.seed)


def _spread(validation: LabeledImages) -> LabeledImages:
    """Return some of the validation images, from all over: folders are sorted by class."""
    step = -(-len(validation) // MOST_IMAGES)
    return validation.take(np.arange(0, len(validation), step), validation.source)
