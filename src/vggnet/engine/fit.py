"""The training loop: one step, one epoch, one run, for every device and process count."""

from __future__ import annotations

import copy
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
from vggnet.engine.averaging import update_average
from vggnet.engine.device import autocast, place, seed_generator, synchronize
from vggnet.engine.optimizer import build_optimizer
from vggnet.engine.schedule import count_steps, lr_at
from vggnet.engine.session import Session
from vggnet.errors import TrainingDivergedError
from vggnet.kernels import accelerate
from vggnet.model.vgg import VGG


@dataclass
class TrainState:
    """What changes while training, and the rule that changes it."""

    network: VGG
    """The plain network; its parameters are the ones that are trained."""
    replica: nn.Module
    """The same parameters behind whatever runs them: compiled kernels, other processes."""
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    """Scales the loss under fp16, and does nothing under every other precision."""
    config: TrainConfig
    device: torch.device
    session: Session
    averaged: VGG | None = None
    """The running average of the network over the steps, if the configuration asks for one."""
    step: int = 0
    """Optimizer steps taken so far."""
    sums: Tensor = field(default_factory=lambda: torch.zeros(0, 2))
    """Summed loss and images classified right of each step of the epoch under way, over this
    process's share: float32, (steps, 2), on the device. Rows of steps to come are zero."""
    sums_from: int = 0
    """The step whose sums are the first row."""
    seconds: float = 0.0
    """Spent on the epoch under way, up to its last step."""

    @property
    def eval_model(self) -> VGG:
        """The network that is evaluated and saved: the average, if there is one."""
        return self.averaged or self.network


@dataclass(frozen=True)
class EpochResult:
    """What one epoch, or the part of it that was asked for, came to."""

    epoch: float
    """Passes over the data completed, counting from the start of the run."""
    step: int
    """Optimizer steps taken, counting from the start of the run."""
    images: int
    """Images trained on in this epoch, over all processes."""
    loss: float
    """Mean loss of this epoch's images, each under the weights of its own step."""
    accuracy: float
    """Share of this epoch's images classified right, likewise; 0 to 1."""
    lr: float
    """Learning rate of the last step."""
    seconds: float
    """From the first batch to the device having finished the last step; where the run was
    stopped and resumed in between, without the time that it stood still."""
    step_losses: list[float] = field(repr=False)
    """Mean loss of each step's batch."""
    step_accuracies: list[float] = field(repr=False)
    """Share of each step's batch classified right; 0 to 1."""


def build_state(
    network: VGG, config: TrainConfig, device: torch.device, session: Session
) -> TrainState:
    """Put a network on its device, in place, and give it an optimizer.

    Raises:
        KernelError: Compiled kernels are demanded and cannot be had.
    """
    place(network, device)
    replica = session.replicate(accelerate(network, config.kernels), device)
    optimizer = build_optimizer(network, config)
    scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "fp16")
    averaged = copy.deepcopy(network) if config.average_decay else None
    return TrainState(network, replica, optimizer, scaler, config, device, session, averaged)


def step_seed(seed: int, step: int, rank: int) -> int:
    """Return the seed of the random numbers (dropout) of one step on one process.

    A pure function, as the order of the images is: there is no generator whose state a
    checkpoint could lose, and no two steps or processes drop the same units.
    """
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0])


def train_step(state: TrainState, batch: Batch) -> tuple[Tensor, Tensor]:
    """Take one optimizer step on a batch.

    The loss is summed over this process's images and divided by the whole batch's
    count, so that the average over processes is the mean over the batch, whatever
    the shares.

    Returns:
        Summed loss, and count of images classified right, over this process's share:
        detached scalars on the device. Reading them waits for the device.
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
    if state.averaged:
        update_average(state.averaged, state.network, state.config.average_decay, state.step)
    return loss.detach(), (logits.detach().argmax(1) == batch.labels).sum()


def fit(
    state: TrainState,
    batches: Batches,
    on_step: Callable[[TrainState], None] = lambda state: None,
) -> Iterator[EpochResult]:
    """Train from `state.step` to the run's end, yielding after each epoch.

    It neither prints nor saves, and it does not wait for the device inside an epoch (torch's
    gradient scaler does, in fp16 under an optimizer that does not scale for itself, as Muon).

    Args:
        state: Advanced in place.
        batches: The training images.
        on_step: Called after each step; it may raise, to end the run at a step boundary,
            from where another call goes on.

    Raises:
        TrainingDivergedError: The loss is NaN or infinite, or what the epoch's last step has
            left as weights. On a CPU the loss is looked at in each step, elsewhere at the end of
            its epoch, where the device is waited for anyway.
    """
    total = count_steps(state.config.epochs, len(batches))
    # An epoch that was left after what now is the last step has only to be summed up.
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
        seed_generator(state.device, step_seed(state.config.seed, state.step, state.session.rank))
        loss, correct = train_step(state, batch)
        row[0], row[1] = loss, correct
        if state.device.type == "cpu" and not math.isfinite(loss.item()):
            raise _diverged(state.step - 1, loss.item(), lr)
        state.seconds = time.perf_counter() - started
        on_step(state)
    synchronize(state.device)  # the epoch's one wait
    state.seconds = time.perf_counter() - started
    return _end_epoch(state, batches, total)


def check_losses(state: TrainState, total: int) -> None:
    """Wait for the device, and look at the losses of the epoch under way.

    Every process takes part. On a CPU each step has looked at its own.

    Raises:
        TrainingDivergedError: One is NaN or infinite.
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
    return TrainingDivergedError(f"the loss became {loss} at step {step + 1}", step, lr)


def _check_weights(state: TrainState, total: int) -> None:
    """Look for what the epoch's last update did, which no loss of a step shows yet."""
    finite = torch.stack([one.isfinite().all() for one in state.eval_model.parameters()]).all()
    if not finite.item():
        step, lr = state.step, lr_at(state.step - 1, total, state.config)
        raise TrainingDivergedError(f"step {step} left weights that are not finite", step, lr)


def _end_epoch(state: TrainState, batches: Batches, total: int) -> EpochResult:
    """Sum an epoch up over all processes, and clear the way for the next.

    Each process has gathered the statistics of batch norm over its own share of the
    images; those of the main one count, whichever process evaluates with them.
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
