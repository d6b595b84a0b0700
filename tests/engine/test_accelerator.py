"""On a simulated accelerator: the CPU's results bit for bit, no wait within an epoch."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from accelerator import DEVICE, NAME, Machine, OnDevice, accelerator
from vggnet.config import Config
from vggnet.data.batches import Batch, Batches
from vggnet.data.dataset import LabeledImages
from vggnet.data.preprocessing import Preprocessing
from vggnet.engine import fit as fit_module
from vggnet.engine import optimizer as optimizer_module
from vggnet.engine.device import computing, own_random_numbers
from vggnet.engine.evaluate import evaluate
from vggnet.engine.fit import EpochResult, TrainState, build_state, fit, train_step
from vggnet.engine.session import Session
from vggnet.engine.snapshot import restore_snapshot, take_snapshot
from vggnet.model.vgg import build_network
from vggnet.recipes import resolve_config

CPU = torch.device("cpu")
IMAGES = LabeledImages(
    np.random.default_rng(0).integers(0, 255, (100, 1, 28, 28), dtype=np.uint8),
    np.arange(100) % 10,
    10,
    "noise",
)
STEPS = 4
"""Steps per epoch."""

RECIPES: dict[str, dict[str, Any]] = {
    "article": {"recipe": "article"},
    "fast": {"recipe": "fast"},
    "best": {"recipe": "best"},
    "muon, batch norm, dropout": {
        "recipe": "fast",
        "model": {"batch_norm": True, "dropout": 0.3},
        "train": {"weight_decay": 0.1},
    },
    "adamw, mirrored, averaged": {
        "recipe": "article",
        "augment": {"flip": True, "shift": 2.0},
        "train": {"optimizer": "adamw", "weight_decay": 0.1, "average_decay": 0.9},
    },
    "adam in fp16": {"recipe": "article", "train": {"precision": "fp16"}},
    "growing images": {"recipe": "fast", "train": {"growth_fraction": 0.7}},
    "muon in fp16": {"recipe": "fast", "train": {"precision": "fp16"}},
    "adamw in bf16": {"recipe": "best", "train": {"precision": "bf16"}},
}


@pytest.fixture
def machine() -> Iterator[Machine]:
    """The simulated accelerator."""
    with accelerator() as machine:
        yield machine


def configure(recipe: str) -> Config:
    """Return a recipe for a small network, four steps an epoch and one and a half epochs."""
    small = {
        "model": {"stages": "8/8,16", "hidden": "16"},
        "train": {
            "epochs": 1.5,
            "global_batch_size": 32,
            "kernels": "torch",
            "growth_fraction": 0.0,
        },
    }
    given = RECIPES[recipe]
    merged = {name: {**small.get(name, {}), **given.get(name, {})} for name in ("model", "train")}
    return resolve_config({**given, **merged})


@dataclass
class Training:
    """A training in progress, and what it transferred between steps."""

    state: TrainState
    batches: Batches
    machine: Machine = field(default_factory=Machine)
    results: list[EpochResult] = field(default_factory=list)
    between: dict[int, list[str]] = field(default_factory=dict)
    """What was transferred after the previous step and up to the end of each one."""
    operations: list[int] = field(default_factory=list)
    """Operations started on the device up to the end of each step."""

    def run(self) -> Training:
        """Train to the end."""
        seen = 0

        def on_step(state: TrainState) -> None:
            nonlocal seen
            transfers = [*self.machine.uploads, *self.machine.waits]
            self.between[state.step] = transfers[seen:]
            seen = len(transfers)
            self.operations.append(len(self.machine.operations))

        with computing("fp32", 1), own_random_numbers(self.state.device):
            self.results += fit(self.state, self.batches, on_step)
        return self

    def weights(self) -> dict[str, Tensor]:
        """Return what is saved of the network, on the CPU."""
        return {name: one.cpu() for name, one in self.state.eval_model.state_dict().items()}

    def check_no_transfer(self) -> None:
        """Check that between the steps of an epoch nothing went to or came from the device."""
        assert len(self.between) == len(self.operations) > STEPS
        for step, transfers in self.between.items():
            if step % STEPS != 1:  # an epoch's first step gets the order of the images
                assert not transfers, f"step {step}"


def begin(recipe: str, device: torch.device, machine: Machine | None = None) -> Training:
    """Build the initial state and the batches."""
    config = configure(recipe)
    network = build_network(config.model, 0)
    batches = Batches(
        IMAGES, device, Preprocessing.from_config(config), batch_size=32, augment=config.augment
    )
    state = build_state(network, config.train, device, Session())
    return Training(state, batches, machine or Machine())


def begin_on_cpu(recipe: str, monkeypatch: pytest.MonkeyPatch) -> Training:
    """Build the same on the CPU, with Muon's products in one batch as on other devices."""
    together = optimizer_module.orthogonalize_together
    monkeypatch.setattr(optimizer_module, "orthogonalize_all", together)
    return begin(recipe, CPU)


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Whether two sets of weights are the same, bit for bit."""
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("recipe", RECIPES)
def test_training_equals_the_cpus(
    recipe: str, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Losses, weights and logits are the CPU's, and nothing is transferred within an epoch."""
    found = begin(recipe, DEVICE, machine).run()
    found.check_no_transfer()
    state = found.state
    of_optimizer = [one for state in state.optimizer.state.values() for one in state.values()]
    for tensor in [*state.eval_model.state_dict().values(), *of_optimizer, state.sums]:
        assert tensor.device == DEVICE
    expected = begin_on_cpu(recipe, monkeypatch).run()
    for one, other in zip(found.results, expected.results, strict=True):
        assert one.step_losses == other.step_losses
        assert one.step_accuracies == other.step_accuracies
    assert same(found.weights(), expected.weights())
    before = len(machine.waits)
    logits = evaluate(state.eval_model, found.batches, Session()).logits
    assert len(machine.waits) - before == 2  # logits and labels, once each
    reference = evaluate(expected.state.eval_model, expected.batches, Session()).logits
    assert (logits == reference).all()


@pytest.mark.parametrize("recipe", ["fast", "best", "growing images", "muon in fp16"])
def test_snapshots_continue_bit_for_bit(recipe: str, machine: Machine) -> None:
    """A snapshot after five steps is on the CPU; another state continues from it exactly."""

    class StopError(Exception):
        pass

    def stop(state: TrainState) -> None:
        if state.step == 5:
            raise StopError

    whole, first, second = (begin(recipe, DEVICE, machine) for _ in range(3))
    whole.run()
    with computing("fp32", 1), pytest.raises(StopError):
        list(fit(first.state, first.batches, stop))
    snapshot = take_snapshot(first.state)
    assert {tensor.device for tensor in snapshot.tensors.values()} == {CPU}
    restore_snapshot(second.state, snapshot)
    second.run()
    assert second.results[-1].step_losses == whole.results[-1].step_losses
    assert same(second.weights(), whole.weights())


@pytest.mark.parametrize("recipe", ["adam in fp16", "muon in fp16"])
def test_a_step_with_infinite_gradients_changes_nothing(recipe: str, machine: Machine) -> None:
    """The scaler skips it without asking the device, and halves the scale."""
    training = begin(recipe, DEVICE, machine)
    state = training.state
    before = training.weights()
    state.scaler = torch.amp.GradScaler(NAME, init_scale=2.0**120)
    batch = next(training.batches.shuffled(0, 0))
    waits = len(machine.waits)
    for _ in range(2):
        train_step(state, batch)
    assert len(machine.waits) == waits
    assert same(training.weights(), before)
    assert state.scaler.get_scale() == 2.0**118
    for parameter in state.network.parameters():
        for name, tensor in state.optimizer.state[parameter].items():
            assert not tensor.cpu().any(), name


def test_muon_unscales_as_the_scaler_does(machine: Machine) -> None:
    """Scaled by a power of two, steps are exactly those of gradients that were never scaled."""
    plain, scaled = (begin("fast", DEVICE, machine) for _ in range(2))
    scaled.state.scaler = torch.amp.GradScaler(NAME, init_scale=2.0**10)
    assert same(plain.run().weights(), scaled.run().weights())


def test_nothing_else_is_resident(machine: Machine) -> None:
    """Images are stored once, as bytes; beside them there are only weights, gradients, averages."""
    training = begin("best", DEVICE, machine)
    gc.collect()
    images = 100 * 28 * 28 + 100 * 8 + 2 * 4  # the labels are int64, mean and std float32
    network, average = training.state.network, training.state.average
    assert average is not None
    stored = [*network.state_dict().values(), *average.network.state_dict().values()]
    assert machine.resident_bytes() == images + sum(one.nbytes for one in stored)
    training.run()
    gc.collect()
    stored += [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    for parameter in network.parameters():
        stored += training.state.optimizer.state[parameter].values()
    sums = 2 * 2 * 4  # of the last epoch's two steps
    assert machine.resident_bytes() == images + sums + sum(one.nbytes for one in stored)


def test_muon_starts_few_operations(machine: Machine) -> None:
    """The products of all its matrices are 15 operations a step, not 15 for each matrix."""
    training = begin("fast", DEVICE, machine).run()
    step = machine.operations[training.operations[1] : training.operations[2]]
    assert sum(name.endswith("bmm") for name in step) == 15


def test_an_epochs_time_contains_its_work(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The device's work is counted until it is done; without the wait, the time is too short."""
    clock = SimpleNamespace(perf_counter=lambda: machine.now)
    monkeypatch.setattr(fit_module, "time", clock)

    def is_complete() -> bool:
        training = begin("article", DEVICE, machine)
        started = len(machine.operations)
        training.run()
        work = (training.operations[STEPS - 1] - started) * machine.work_seconds
        return training.results[0].seconds == pytest.approx(work, rel=0.05)

    assert is_complete()
    monkeypatch.setattr(fit_module, "synchronize", lambda device: None)
    assert not is_complete()


Step = Callable[[TrainState, Batch], tuple[Tensor, Tensor]]


def read_the_loss(state: TrainState, batch: Batch) -> tuple[Tensor, Tensor]:
    """Wait for the loss of a step."""
    loss, correct = train_step(state, batch)
    loss.item()
    return loss, correct


def ask_whether_it_is_finite(state: TrainState, batch: Batch) -> tuple[Tensor, Tensor]:
    """Decide something on the host."""
    loss, correct = train_step(state, batch)
    return (loss, correct) if loss.isfinite() else (correct, loss)


def upload_a_value(state: TrainState, batch: Batch) -> tuple[Tensor, Tensor]:
    """Send something to the device that could have been there before the epoch."""
    loss, correct = train_step(state, batch)
    return loss * torch.tensor([1.0], device=DEVICE)[0], correct


def read_the_order(state: TrainState, batch: Batch) -> tuple[Tensor, Tensor]:
    """Ask for a result whose size only the device knows."""
    batch.labels[batch.labels == 3].sum()
    return train_step(state, batch)


@pytest.mark.parametrize(
    "fault", [read_the_loss, ask_whether_it_is_finite, upload_a_value, read_the_order]
)
def test_a_transfer_in_a_step_is_detected(
    fault: Step, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Faults put into a step fail the check that the other tests use."""
    monkeypatch.setattr(fit_module, "train_step", fault)
    training = begin("article", DEVICE, machine).run()
    with pytest.raises(AssertionError, match="step 2"):
        training.check_no_transfer()


def test_a_tensor_of_the_host_is_detected(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Labels left on the CPU, or an index from there, are refused as CUDA refuses them."""

    def forget_labels(state: TrainState, batch: Batch) -> tuple[Tensor, Tensor]:
        return train_step(state, Batch(batch.images, batch.labels.cpu(), batch.global_size))

    monkeypatch.setattr(fit_module, "train_step", forget_labels)
    with pytest.raises(RuntimeError, match="a tensor of the host"):
        begin("article", DEVICE, machine).run()


def test_the_device_is_not_the_host(machine: Machine) -> None:
    """Its tensors know their device, scalars mix, and a copy to the host waits for the work."""
    one = torch.arange(3.0, device=DEVICE)
    assert isinstance(one, OnDevice)
    assert ((one + torch.tensor(1.0)) * 2).tolist() == [2.0, 4.0, 6.0]
    assert machine.now >= len(machine.operations) * machine.work_seconds
    with pytest.raises(RuntimeError, match="host"):
        one + torch.zeros(3)
