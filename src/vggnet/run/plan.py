"""What is settled before the first step, what is told meanwhile, and what comes of it."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

import torch

from vggnet.config import Config
from vggnet.data.dataset import Dataset, LabeledImages
from vggnet.engine.evaluate import Evaluation, Score
from vggnet.engine.fit import EpochResult
from vggnet.engine.schedule import count_steps
from vggnet.engine.session import Session
from vggnet.errors import ConfigError
from vggnet.model.vgg import padded_size


@dataclass(frozen=True)
class TrainResult:
    """What a run came to."""

    evaluation: Evaluation
    """Of the weights as they are saved, on the test set, which is read this once."""
    epochs: list[EpochResult]
    validations: list[Score | None]
    """On the images held out, after each of the epochs; None without any."""
    config: Config
    output: Path
    """The model file."""
    folder: Path
    """Everything else that the run left."""
    seconds: float
    """From the call to the last file written."""

    @property
    def accuracy(self) -> float:
        """Share of the test images classified right, 0 to 1."""
        return self.evaluation.accuracy


class Reporter:
    """What a run tells while it goes on; this one keeps silent."""

    def started(self, plan: Plan) -> None:
        """Everything is loaded, and training begins."""

    def stepped(self, step: int, total: int) -> None:
        """One more step was handed to the device."""

    def epoch_ended(self, result: EpochResult, validation: Evaluation | None) -> None:
        """An epoch is complete."""

    def warned(self, message: str) -> None:
        """Something was lost, or has changed, that the run can go on without."""


FEW_IMAGES, FEW_STEPS, ENOUGH_STEPS = 20_000, 200, 500
"""Recipes count in epochs of some 60,000 images, of which `fast` takes 469 steps."""


@dataclass(frozen=True)
class Plan:
    """What is settled before the first step."""

    config: Config
    """Complete: classes, channels and image size are the data's."""
    dataset: Dataset
    train: LabeledImages
    """The images to learn from."""
    validation: LabeledImages | None
    """Those held out, if any."""
    device: torch.device
    session: Session
    threads: int
    folder: Path
    output: Path
    first_step: int = 0
    """Steps that were taken before; more than 0 where a run is resumed."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a person should know before believing a figure."""
        settings, count = self.config.train, len(self.train)
        size, per_epoch = settings.global_batch_size, -(-count // settings.global_batch_size)
        steps = count_steps(settings.epochs, per_epoch)
        warnings = list(self.dataset.warnings)
        if count < size:
            warnings.append(
                f"{count:,} training images are fewer than a batch of {size}: each step "
                "sees them all; a smaller --batch-size takes more steps"
            )
        if count < FEW_IMAGES and steps < FEW_STEPS and not self.first_step:
            warnings.append(
                f"--epochs {settings.epochs:g} on {count:,} images makes {steps} "
                f"step{'s' if steps > 1 else ''}, too few to learn much; "
                f"--epochs {-(-ENOUGH_STEPS // per_epoch)} takes {ENOUGH_STEPS} or more"
            )
        return tuple(warnings)

    @property
    def resume_command(self) -> str:
        """What a person types to go on with this run."""
        return resume_command(self.folder, self.session)


def resume_command(folder: Path, session: Session) -> str:
    """Return what a person types to go on with a run."""
    resume = f"train --resume {shlex.quote(str(folder))}"
    if session.world_size == 1:
        return f"vggnet {resume}"
    if session.world_size == session.local_world_size:
        return f"vggnet {resume} --nproc {session.world_size}"
    return f"torchrun … -m vggnet {resume}, on every machine"


def fit_to_data(config: Config, dataset: Dataset, session: Session) -> Config:
    """Complete a configuration with what the data decide.

    Raises:
        ConfigError: A batch is smaller than the number of processes, or mean and std are
            not for as many channels.
    """
    if config.train.global_batch_size < session.world_size:
        raise ConfigError(
            f"batch size {config.train.global_batch_size} does not divide over "
            f"{session.world_size} processes; use at least {session.world_size}"
        )
    channels, height, width = dataset.shape
    scaling = {name: getattr(config.data, name) for name in ("mean", "std")}
    for name, values in scaling.items():
        if len(values) not in (1, channels):
            raise ConfigError(
                f"data.{name} has {len(values)} values, and {dataset.name} {channels} channels; "
                "give one value, or one for each channel"
            )
        scaling[name] = values if len(values) == channels else values * channels
    model = config.model.model_copy(
        update={
            "in_channels": channels,
            "num_classes": len(dataset.classes),
            "image_size": padded_size(config.model, max(height, width)),
        }
    )
    bit_depth = dataset.bit_depth or config.data.bit_depth
    data = config.data.model_copy(update={**scaling, "bit_depth": bit_depth})
    return config.model_copy(update={"model": model, "data": data})
