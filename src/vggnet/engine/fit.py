"""The training loop, for every device and any number of processes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vggnet.config import TrainConfig
from vggnet.data.batches import Batch, Batches
from vggnet.engine.averaging import WeightAverage
from vggnet.engine.device import autocast, place, seed_generator, synchronize
from vggnet.engine.optimizer import build_optimizer
from vggnet.engine.schedule import count_steps, lr_at, side_at
from vggnet.engine.session import Session
from vggnet.errors import TrainingDivergedError
from vggnet.kernels import accelerate
from vggnet.model.vgg import VGG, resample


@dataclass
class TrainState:
    """What changes during training, and what changes it."""

    network: VGG
    """The plain network, which owns the parameters."""
    replica: nn.Module
    """Computes `network` with compiled kernels and averages gradients over processes."""
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    """Scales the loss with fp16; does nothing with other precisions."""
    config: TrainConfig
    device: torch.device
    session: Session
    average: WeightAverage | None = None
    """EMA of the weights, if the configuration has one."""
    step: int = 0
    """Optimizer steps taken so far."""
    sums: Tensor = field(default_factory=lambda: torch.zeros(0, 2))
    """Sum of the loss and number of correct predictions of each step of the epoch in progress,
    over this process's images: float32, (steps, 2), on the device. Rows of future steps are 0."""
    sums_from: int = 0
    """Step of the first row of `sums`."""
    seconds: float = 0.0
    """Time of the epoch in progress, up to its last step."""
    elapsed: float = 0.0
    """Time of the whole run so far, without pauses; decides its end under `config.minutes`."""
    total_steps: int = 0
    """Steps of the whole run, which `fit` counts; under `config.minutes` its end decides."""
    class_weights: Tensor | None = None
    """Weight of each class in the loss, which `fit` computes: float32, (num_classes,)."""

    @property
    def fraction_done(self) -> float:
        """Fraction of the run that is done, from 0 to 1."""
        if self.config.minutes:
            return min(1.0, self.elapsed / (60 * self.config.minutes))
        return self.step / self.total_steps

    @property
    def is_over(self) -> bool:
        """Whether the last step of the run is taken."""
        return self.fraction_done >= 1

    @property
    def expected_steps(self) -> int:
        """Steps of the whole run; under `config.minutes` at the speed so far."""
        return round(self.step / self.fraction_done) if self.config.minutes else self.total_steps

    @property
    def eval_model(self) -> VGG:
        """The network to evaluate and save: the average, if there is one."""
        return self.average.network if self.average else self.network


@dataclass(frozen=True)
class EpochResult:
    """The result of an epoch, or of the part of it that ends the run."""

    epoch: float
    """Epochs completed since the start of the run."""
    step: int
    """Steps taken since the start of the run."""
    images: int
    """Images in this epoch, over all processes."""
    loss: float
    """Mean loss of this epoch's images, each with the weights of its own step."""
    accuracy: float
    """Fraction of this epoch's images classified correctly, likewise."""
    lr: float
    """Learning rate of the last step."""
    seconds: float
    """From the first batch until the device has finished the last step, without pauses in which
    the run was stopped."""
    step_losses: list[float] = field(repr=False)
    """Mean loss of each step."""
    step_accuracies: list[float] = field(repr=False)
    """Fraction of each step's images classified correctly."""


def build_state(
    network: VGG,
    config: TrainConfig,
    device: torch.device,
    session: Session,
    pretrained: Collection[str] = (),
) -> TrainState:
    """Move a network to its device, in place, and build its optimizer.

    Args:
        network: The network.
        config: How to train it.
        device, session: Where.
        pretrained: Names of the parameters that `config.init_lr` applies to.

    Raises:
        KernelError: Compiled kernels are required, but unavailable.
    """
    place(network, device)
    replica = session.replicate(accelerate(network, config.kernels), device)
    optimizer = build_optimizer(network, config, pretrained)
    scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "fp16")
    average = WeightAverage(network, config.average_decay) if config.average_decay else None
    return TrainState(network, replica, optimizer, scaler, config, device, session, average)


def step_seed(seed: int, step: int, rank: int) -> int:
    """Return the seed of the random numbers (dropout) of one step on one process.

    A pure function, like the order of the images: a checkpoint needs no generator state, and
    no two steps or processes drop the same units.
    """
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0])


def train_step(state: TrainState, batch: Batch) -> tuple[Tensor, Tensor]:
    """Run one optimizer step.

    The loss is summed over this process's images and divided by the global batch size, so
    gradients averaged over processes equal those of a single process.

    Returns:
        Sum of the loss and number of correct predictions on this process, detached, on the
        device. Reading them waits for the device.
    """
    with autocast(state.config.precision, state.device):
        logits = state.replica(batch.images).float()
    smoothing = state.config.label_smoothing
    loss = F.cross_entropy(
        logits,
        batch.labels,
        weight=state.class_weights,
        reduction="sum",
        label_smoothing=smoothing,
    )
    scale = state.session.world_size / batch.global_size
    state.optimizer.zero_grad()
    state.scaler.scale(loss * scale).backward()  # type: ignore[no-untyped-call]
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.step += 1
    if state.average:
        state.average.update(state.step)
    return loss.detach(), (logits.detach().argmax(1) == batch.labels).sum()


def fit(
    state: TrainState,
    batches: Batches,
    on_step: Callable[[TrainState], None] = lambda state: None,
) -> Iterator[EpochResult]:
    """Train from where the state is to the end of the run, and yield a result per epoch.

    It neither prints nor saves, and does not wait for the device within an epoch.

    Args:
        state: Changed in place.
        batches: The training images.
        on_step: Called after each step. It may raise an exception to stop after that step;
            another call of `fit` continues from there.

    Raises:
        TrainingDivergedError: The loss, or the weights at the end of an epoch, are not finite.
            On a CPU the loss is checked at each step, on other devices at the end of each
            epoch, which waits for the device anyway.
    """
    state.total_steps = count_steps(state.config.epochs, len(batches))
    if state.config.class_weights == "balanced":
        state.class_weights = balance(batches.labels, state.network.config.num_classes)
    began = time.perf_counter() - state.elapsed
    # If a run stopped after what is now its last step, only the epoch's result is missing.
    while not state.is_over or len(state.sums):
        yield _train_epoch(state, batches, began, on_step)


def balance(labels: Tensor, num_classes: int) -> Tensor:
    """Return a weight for each class, float32, (num_classes,), that is 1 if all have as many.

    All images of a class together count as much as those of any other: the weight is
    N / (number of classes present × images of the class), and 0 for a class without images.
    """
    counts = torch.bincount(labels, minlength=num_classes).float()
    weights = len(labels) / (counts.count_nonzero() * counts)
    return torch.where(counts > 0, weights, 0.0)


def _train_epoch(
    state: TrainState, batches: Batches, began: float, on_step: Callable[[TrainState], None]
) -> EpochResult:
    epoch, skipped = divmod(state.step, len(batches))
    steps = 0 if state.is_over else len(batches) - skipped
    if not state.config.minutes:
        steps = min(steps, state.total_steps - state.step)
    taken = state.sums[: state.step - state.sums_from]
    state.sums = torch.cat([taken, taken.new_zeros(steps, 2)]).to(state.device)
    state.sums_from = state.step - len(taken)
    state.replica.train()
    started = time.perf_counter() - state.seconds
    rows = state.sums[len(taken) :]
    for batch, row in zip(batches.shuffled(state.config.seed, epoch, skipped), rows, strict=False):
        lr = _lr_of(state, state.step)
        for group in state.optimizer.param_groups:
            group["lr"] = lr * group["factor"]
        if state.network.config.dropout:
            seed = step_seed(state.config.seed, state.step, state.session.rank)
            seed_generator(state.device, seed)
        small = replace(batch, images=resample(batch.images, _side_of(state)))
        loss, correct = train_step(state, small)
        row[0], row[1] = loss, correct
        if state.device.type == "cpu" and not math.isfinite(loss.item()):
            raise _diverged(state.step - 1, loss.item(), lr)
        state.seconds = time.perf_counter() - started
        _read_clock(state, began)
        on_step(state)
        if state.is_over:
            break
    synchronize(state.device)  # the only wait of the epoch
    state.seconds = time.perf_counter() - started
    state.sums = state.sums[: state.step - state.sums_from]  # the time may have ended before
    return _end_epoch(state, batches)


def _read_clock(state: TrainState, began: float) -> None:
    """Note the time of the run so far: if it decides the end, that of the main process."""
    state.elapsed = time.perf_counter() - began
    if state.config.minutes:
        clock = torch.tensor([state.elapsed], dtype=torch.float64)
        state.session.broadcast([clock])
        state.elapsed = clock.item()


def _lr_of(state: TrainState, step: int) -> float:
    """Return the learning rate of a step; under `config.minutes` that of now."""
    return lr_at(_done(state, step), state.config)


def _side_of(state: TrainState) -> int:
    """Return the height and width of the images of the next step."""
    model, growth = state.network.config, state.config.growth_fraction
    return side_at(_done(state, state.step), growth, model.image_size, model.downsampling)


def _done(state: TrainState, step: int) -> float:
    """Return how much of the run is done in the middle of a step; under `config.minutes` now."""
    return state.fraction_done if state.config.minutes else (step + 0.5) / state.total_steps


def check_losses(state: TrainState) -> None:
    """Wait for the device, and check the losses of the epoch in progress.

    Every process takes part. On a CPU each step has checked its own loss.

    Raises:
        TrainingDivergedError: A loss is NaN or infinite.
    """
    if len(state.sums):
        losses = state.session.all_reduce(state.sums[:, 0].clone()).tolist()
        _check_finite(state, state.sums_from, losses)


def _check_finite(state: TrainState, first: int, losses: list[float]) -> None:
    for offset, loss_sum in enumerate(losses):
        if not math.isfinite(loss_sum):
            raise _diverged(first + offset, loss_sum, _lr_of(state, first + offset))


def _diverged(step: int, loss: float, lr: float) -> TrainingDivergedError:
    return TrainingDivergedError(f"the loss is {loss} at step {step + 1}", step, lr)


def _check_weights(state: TrainState) -> None:
    """Check the result of the epoch's last update, which no loss shows yet."""
    finite = torch.stack([one.isfinite().all() for one in state.eval_model.parameters()]).all()
    if not finite.item():
        step, lr = state.step, _lr_of(state, state.step - 1)
        raise TrainingDivergedError(f"the weights are not finite after step {step}", step, lr)


def _end_epoch(state: TrainState, batches: Batches) -> EpochResult:
    """Add up the epoch's figures over all processes, and prepare the next epoch.

    Each process has its own statistics of batch norm; all continue with those of the main one.
    """
    state.session.broadcast(state.eval_model.buffers())
    first, seconds = state.sums_from, state.seconds
    losses, corrects = state.session.all_reduce(state.sums).T.tolist()
    state.sums, state.sums_from, state.seconds = state.sums[:0], state.step, 0.0
    _check_finite(state, first, losses)
    _check_weights(state)
    sizes = [batches.size_of(step % len(batches)) for step in range(first, state.step)]
    return EpochResult(
        epoch=state.step / len(batches),
        step=state.step,
        images=sum(sizes),
        loss=sum(losses) / sum(sizes),
        accuracy=sum(corrects) / sum(sizes),
        lr=_lr_of(state, state.step - 1),
        seconds=seconds,
        step_losses=[loss / size for loss, size in zip(losses, sizes, strict=True)],
        step_accuracies=[right / size for right, size in zip(corrects, sizes, strict=True)],
    )
