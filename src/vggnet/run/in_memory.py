"""Train a network without files, checkpoints or a test."""

from __future__ import annotations

import torch

from vggnet.config import Config
from vggnet.data.batches import Batches
from vggnet.data.dataset import LabeledImages
from vggnet.data.preprocessing import Preprocessing
from vggnet.engine.fit import build_state, fit
from vggnet.engine.session import Session
from vggnet.model.folding import fold_batch_norm
from vggnet.model.vgg import VGG, build_network


def train_in_memory(examples: LabeledImages, config: Config, device: torch.device) -> VGG:
    """Train on all images, and return the network as a run would save it.

    Args:
        examples: The images.
        config: Complete, as `fit_to_data` returns it.
        device: Where to compute.

    Raises:
        TrainingDivergedError: The loss or the weights are not finite.
    """
    network = build_network(config.model, config.train.seed)
    state = build_state(network, config.train, device, Session())
    batches = Batches(
        examples,
        device,
        Preprocessing.from_config(config),
        batch_size=config.train.global_batch_size,
        augment=config.augment,
    )
    for _ in fit(state, batches):
        pass
    return fold_batch_norm(state.eval_model.eval())
