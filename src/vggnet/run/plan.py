"""What is known before the first step of a run, and who is told of its progress."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from vggnet.config import Config
from vggnet.data.collection import list_names
from vggnet.data.dataset import Dataset, LabeledImages
from vggnet.engine.evaluate import Evaluation
from vggnet.engine.fit import EpochResult
from vggnet.engine.schedule import count_steps
from vggnet.engine.session import TIMEOUT, Session
from vggnet.errors import quote
from vggnet.run.checkpointing import Checkpoint, Origin
from vggnet.run.initial import Initial

if TYPE_CHECKING:
    from vggnet.run.results import TrainResult

FEW_IMAGES, FEW_STEPS, ENOUGH_STEPS = 20_000, 200, 300
"""Recipes assume about 60,000 images; `fast` then takes 469 steps."""

FEW_TESTED = 30
"""Test images of a class; with fewer, its recall is uncertain by more than ±10 points."""


@dataclass(frozen=True)
class Options:
    """Where a run writes its files, and how often; none of this changes the result."""

    output: Path | None = None
    """Model file; default: that of the resumed run, or `<dataset>_vggnet.pth`."""
    runs: Path = Path("runs")
    """Folder that contains the run folders."""
    force: bool = False
    """Replace an existing file at `output` that vggnet did not write."""
    inputs: tuple[Path, ...] = ()
    """Files that the command has read, which the model file never replaces."""
    name: str | None = None
    """Name of the run folder; default: recipe, dataset and time."""
    checkpoint_every: str | None = None
    """Steps ("10") or seconds ("30s"); default: 30 s, or longer to stay below 1 % of the time."""
    timeout: float = TIMEOUT
    """Seconds to wait for another process."""
    tensorboard: bool = False
    """Write TensorBoard events to the run folder."""


@dataclass(frozen=True)
class Start:
    """What a run starts from: a configuration, and the state of the run it resumes, if any."""

    config: Config
    folder: Path | None = None
    """Folder of the run to resume; None for a new run."""
    checkpoint: Checkpoint | None = None
    finished: bool = False
    """Whether the run in `folder` has written all its results."""


@dataclass(frozen=True)
class Plan:
    """Everything that is settled before the first step."""

    start: Start
    config: Config
    """Complete: classes, channels and image size are those of the dataset."""
    dataset: Dataset
    train: LabeledImages
    validation: LabeledImages | None
    """Images held out from training, if any."""
    calibration: LabeledImages | None
    """Images that are not trained on, to calibrate the probabilities, if any."""
    device: torch.device
    session: Session
    threads: int
    output: Path
    """The model file."""
    initial: Initial | None = None
    """The trained model to start from; None if the run is resumed."""

    @property
    def folder(self) -> Path | None:
        """Folder of the run to resume; None for a new run."""
        return self.start.folder

    @property
    def first_step(self) -> int:
        """Steps taken before; more than 0 if the run is resumed."""
        return self.start.checkpoint.record.step if self.start.checkpoint else 0

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run, unless its time decides."""
        return count_steps(self.config.train.epochs, self._steps_per_epoch)

    @property
    def origin(self) -> Origin | None:
        """The trained model that the run started from, resumed or not."""
        if self.start.checkpoint:
            return self.start.checkpoint.record.init
        return Origin(name=self.initial.name, sha256=self.initial.sha256) if self.initial else None

    @property
    def warnings(self) -> tuple[str, ...]:
        """What may make the result worse than expected."""
        count, size = len(self.train), self.config.train.global_batch_size
        steps, epochs = self.total_steps, self.config.train.epochs
        warnings = list(self.dataset.warnings)
        tested = np.bincount(self.dataset.test.labels)
        if rare := np.flatnonzero((tested > 0) & (tested < FEW_TESTED)).tolist():
            warnings.append(
                f"fewer than {FEW_TESTED} test images of "
                f"{list_names([self.dataset.classes[at] for at in rare])}: their recall, and what "
                "is computed from it, is uncertain"
            )
        if steps >= FEW_STEPS or count >= FEW_IMAGES or self.config.train.minutes:
            return tuple(warnings)
        if count < size:
            warnings.append(
                f"{count:,} training images are fewer than the batch size {size}: every step "
                "uses all of them; a smaller --batch-size gives more steps"
            )
        if not self.first_step:
            warnings.append(
                f"--epochs {epochs:g} on {count:,} images gives {steps} "
                f"step{'s' if steps > 1 else ''}, too few to learn much; --min-steps "
                f"{ENOUGH_STEPS} gives enough"
            )
        return tuple(warnings)

    @property
    def _steps_per_epoch(self) -> int:
        return -(-len(self.train) // self.config.train.global_batch_size)


class Reporter:
    """Is told of a run's progress; this one ignores it. Subclass it to show the progress.

    Examples:
        >>> class Losses(vggnet.Reporter):
        ...     def epoch_ended(self, result, validation):
        ...         print(f"epoch {result.epoch:g}, step {result.step}")
        >>> import numpy as np
        >>> images = np.random.default_rng(0).random((60, 8, 8))
        >>> result = vggnet.train((images, [0, 1] * 30), epochs=2, reporter=Losses())
        epoch 1, step 1
        epoch 2, step 2
    """

    def started(self, plan: Plan) -> None:
        """Everything is loaded, and training starts."""

    def stepped(self, step: int, total: int) -> None:
        """A step was given to the device."""

    def watched(self, losses: Callable[[], list[float]]) -> None:
        """A step was given to the device; `losses()` waits for it.

        It returns the mean loss of each step of the epoch in progress, over this process's images.
        """

    def epoch_ended(self, result: EpochResult, validation: Evaluation | None) -> None:
        """An epoch is complete."""

    def warned(self, message: str) -> None:
        """Something is lost or has changed, but the run continues."""

    def finished(self, result: TrainResult) -> None:
        """All files are written; `train` calls this, `run` and `resume_run` do not."""


def resume_command(folder: Path, session: Session) -> str:
    """Return the command that resumes the run in `folder`."""
    resume = f"train --resume {quote([str(folder)])}"
    if session.world_size == 1:
        return f"vggnet {resume} (in Python: vggnet.train(resume={str(folder)!r}))"
    if session.world_size == session.local_world_size:
        return f"vggnet {resume} --nproc {session.world_size}"
    return f"torchrun … -m vggnet {resume}, on every machine"
