"""The training loop, for every device and any number of processes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vggnet.config import TrainConfig
from vggnet.data.batches import Batch, Batches
from vggnet.engine.averaging import WeightAverage
from vggnet.engine.device import autocast, place, seed_generator, synchronize
from vggnet.engine.optimizer import build_optimizer
from vggnet.engine.schedule import count_steps, lr_at
from vggnet.engine.session import Session
from vggnet.errors import TrainingDivergedError
from vggnet.kernels import accelerate
from vggnet.model.vgg import VGG


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
    network: VGG, config: TrainConfig, device: torch.device, session: Session
) -> TrainState:
    """Move a network to its device, in place, and build its optimizer.

    Raises:
        KernelError: Compiled kernels are required, but unavailable.
    """
    place(network, device)
    replica = session.replicate(accelerate(network, config.kernels), device)
    optimizer = build_optimizer(network, config)
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
    loss = F.cross_entropy(logits, batch.labels, reduction="sum", label_smoothing=smoothing)
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
    """Train from `state.step` to the end of the run, and yield a result per epoch.

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
    total = count_steps(state.config.epochs, len(batches))
    # If a run stopped after what is now its last step, only the epoch's result is missing.
    while state.step < total or len(state.sums):
        yield _train_epoch(state, batches, total, on_step)


def _train_epoch(
    state: TrainState, batches: Batches, total: int, on_step: Callable[[TrainState], None]
) -> EpochResult:
    epoch, skipped = divmod(state.step, len(batches))
    steps = min(len(batches) - skipped, total - state.step)
    taken = state.sums[: state.step - state.sums_from]
    state.sums = torch.cat([taken, taken.new_zeros(steps, 2)]).to(state.device)
    state.sums_from = state.step - len(taken)
    state.replica.train()
    started = time.perf_counter() - state.seconds
    rows = state.sums[len(taken) :]
    for batch, row in zip(batches.shuffled(state.config.seed, epoch, skipped), rows, strict=False):
        lr = lr_at(state.step, total, state.config)
        for group in state.optimizer.param_groups:
            group["lr"] = lr
        if state.network.config.dropout:
            seed = step_seed(state.config.seed, state.step, state.session.rank)
            seed_generator(state.device, seed)
        loss, correct = train_step(state, batch)
        row[0], row[1] = loss, correct
        if state.device.type == "cpu" and not math.isfinite(loss.item()):
            raise _diverged(state.step - 1, loss.item(), lr)
        state.seconds = time.perf_counter() - started
        on_step(state)
    synchronize(state.device)  # the only wait of the epoch
    state.seconds = time.perf_counter() - started
    return _end_epoch(state, batches, total)


def check_losses(state: TrainState, total: int) -> None:
    """Wait for the device, and check the losses of the epoch in progress.

    Every process takes part. On a CPU each step has checked its own loss.

    Raises:
        TrainingDivergedError: A loss is NaN or infinite.
    """
    if len(state.sums):
        losses = state.session.all_reduce(state.sums[:, 0].clone()).tolist()
        _check_finite(state, total, state.sums_from, losses)


def _check_finite(state: TrainState, total: int, first: int, losses: list[float]) -> None:
    for offset, loss_sum in enumerate(losses):
        if not math.isfinite(loss_sum):
            lr = lr_at(first + offset, total, state.config)
            raise _diverged(first + offset, loss_sum, lr)


def _diverged(step: int, loss: float, lr: float) -> TrainingDivergedError:
    return TrainingDivergedError(f"the loss is {loss} at step {step + 1}", step, lr)


def _check_weights(state: TrainState, total: int) -> None:
    """Check the result of the epoch's last update, which no loss shows yet."""
    finite = torch.stack([one.isfinite().all() for one in state.eval_model.parameters()]).all()
    if not finite.item():
        step, lr = state.step, lr_at(state.step - 1, total, state.config)
        raise TrainingDivergedError(f"the weights are not finite after step {step}", step, lr)


def _end_epoch(state: TrainState, batches: Batches, total: int) -> EpochResult:
    """Add up the epoch's figures over all processes, and prepare the next epoch.

    Each process has its own statistics of batch norm; all continue with those of the main one.
    """
    state.session.broadcast(state.eval_model.buffers())
    first, seconds = state.sums_from, state.seconds
    losses, corrects = state.session.all_reduce(state.sums).T.tolist()
    state.sums, state.sums_from, state.seconds = state.sums[:0], state.step, 0.0
    _check_finite(state, total, first, losses)
    _check_weights(state, total)
    sizes = [batches.size_of(step % len(batches)) for step in range(first, state.step)]
    return EpochResult(
        epoch=state.step / len(batches),
        step=state.step,
        images=sum(sizes),
        loss=sum(losses) / sum(sizes),
        accuracy=sum(corrects) / sum(sizes),
        lr=lr_at(state.step - 1, total, state.config),
        seconds=seconds,
        step_losses=[loss / size for loss, size in zip(losses, sizes, strict=True)],
        step_accuracies=[right / size for right, size in zip(corrects, sizes, strict=True)],
    )
