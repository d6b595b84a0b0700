"""The timing is right: nothing unfinished is left out, and the parts are the whole."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from conftest import make_batches
from vggnet.compare.flops import count_flops_per_image, flops_per_image
from vggnet.compare.measure import Timer, Training, time_fit, time_parts, time_steps
from vggnet.compare.result import Setting
from vggnet.config import ModelConfig, TrainConfig
from vggnet.data.batches import Batches
from vggnet.data.dataset import Dataset, LabeledImages
from vggnet.engine.device import computing
from vggnet.engine.fit import TrainState, build_state, fit
from vggnet.engine.session import Session
from vggnet.model.vgg import build_network
from vggnet.recipes import resolve_config

CPU = torch.device("cpu")
SMALL = ModelConfig(stages=((8,), (8,)), hidden=(8,), dropout=0.0)


@dataclass
class FakeDevice:
    """A device that works on while the host goes on, and a clock that both share."""

    now: float = 0.0
    """The host's clock, seconds."""
    free_at: float = 0.0
    """When the device will have done what it was given."""
    given: list[float] = field(default_factory=list)

    def enqueue(self, seconds: float) -> None:
        """Give it work; the host is free again after a millisecond."""
        self.now += 0.001
        self.free_at = max(self.free_at, self.now) + seconds
        self.given.append(seconds)

    def timer(self) -> Timer:
        """Return a timer that reads its clock and waits for it."""
        return Timer(clock=lambda: self.now, wait=self.wait)

    def wait(self, device: torch.device) -> None:
        """Let the host's clock run until the device is idle."""
        self.now = max(self.now, self.free_at)


class OnDevice(nn.Module):
    """A network whose forward pass is a job for the fake device."""

    def __init__(self, network: nn.Module, device: FakeDevice, seconds: float) -> None:
        super().__init__()
        self.network, self.device, self.seconds = network, device, seconds

    def forward(self, images: Tensor) -> Tensor:
        self.device.enqueue(self.seconds)
        logits: Tensor = self.network(images)
        return logits


def begin(steps_of_three: float = 1) -> TrainState:
    """Start a training of three steps an epoch."""
    config = TrainConfig(epochs=steps_of_three)
    return build_state(build_network(SMALL, 0), config, CPU, Session())


@given(
    before=st.lists(st.floats(0, 100), max_size=5),
    inside=st.lists(st.floats(0, 100), min_size=1, max_size=10),
)
def test_no_work_is_left_out_and_none_is_taken_in(before: list[float], inside: list[float]) -> None:
    """A timed region begins with an idle device and ends with one, whatever is queued."""
    device = FakeDevice()
    for seconds in before:
        device.enqueue(seconds)

    def work() -> None:
        for seconds in inside:
            device.enqueue(seconds)

    found = device.timer().time(CPU, work)
    assert found >= sum(inside)
    assert found <= sum(inside) + 0.001 * len(inside) + 1e-6


def test_the_real_fit_is_waited_for(batches: Batches) -> None:
    """Three steps of `fit` that leave 10 s each on the device take 30 s, not 3 ms."""
    device = FakeDevice()
    state = begin()
    state.replica = OnDevice(state.network, device, 10.0)
    device.enqueue(1000.0)
    seconds, losses = time_fit(state, batches, device.timer(), lambda state: None)
    assert seconds == pytest.approx(30, abs=0.01)
    assert len(losses) == 3
    assert device.given[1:] == [10.0] * 3


def test_each_step_is_waited_for(batches: Batches) -> None:
    """A step's own time holds its own work alone."""
    device = FakeDevice()
    state = begin()
    state.replica = OnDevice(state.network, device, 10.0)
    assert time_steps(state, batches, device.timer()) == pytest.approx([10.0] * 3, abs=0.01)


def test_parts_are_told_apart(batches: Batches) -> None:
    """Work that the forward pass leaves on the device is the forward pass's, and no other's."""
    device = FakeDevice()
    state = begin(4)
    state.replica = OnDevice(state.network, device, 10.0)
    state.optimizer.register_step_pre_hook(lambda *_: device.enqueue(3.0))
    parts = time_parts(state, batches, device.timer())
    assert parts is not None
    assert parts.forward_ms == pytest.approx(10_000, abs=2)
    # The hook was there before the one that marks, so its work precedes the optimizer's mark.
    assert parts.backward_ms == pytest.approx(3_000, abs=2)
    assert parts.optimizer_ms == parts.batch_ms == 0
    assert parts.step_ms == pytest.approx(13_000, abs=4)


def test_parts_add_up_to_the_step(few: LabeledImages) -> None:
    """On a real clock the parts' sum is the whole step's time, within 5 %.

    Split and whole steps alternate in one run. The clock is the processor's time of this
    process, which one thread uses up: what other processes do does not count.
    """

    def measure() -> float:
        network = build_network(ModelConfig(dropout=0.0), 0)
        state = build_state(network, TrainConfig(epochs=10, kernels="torch"), CPU, Session())
        clock = Timer(clock=time.process_time)
        with computing("fp32", 1):
            parts = time_parts(state, make_batches(few, batch_size=64), clock)
        assert parts is not None
        total = parts.batch_ms + parts.forward_ms + parts.backward_ms
        return (total + parts.optimizer_ms + parts.other_ms) / parts.step_ms

    # A neighbour that shares the core slows one kind of step or the other: once in a while by 5 %.
    assert any(measure() == pytest.approx(1, abs=0.05) for _ in range(3))


def test_splitting_changes_nothing(batches: Batches) -> None:
    """The hooks leave the training as it is, and are gone afterwards."""
    plain, watched = begin(2), begin(2)
    for _ in fit(plain, batches):
        pass
    time_parts(watched, batches, Timer())
    for ours, theirs in zip(watched.network.parameters(), plain.network.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert not watched.replica._forward_hooks
    assert not watched.replica._forward_pre_hooks


def test_every_repeat_is_the_same_training(mnist: Dataset) -> None:
    """Two repeats have the same losses to the bit, dropout included, and torch's state is kept."""
    config = resolve_config({"model": {"stages": ((8,), (8,)), "hidden": (8,), "dropout": 0.5}})
    setting = Setting(
        device="cpu", precision="fp32", global_batch_size=128, threads=1, kernels="torch"
    )
    training = Training(setting, config, mnist, 3)
    before = torch.random.get_rng_state()
    losses = []
    for _ in range(2):
        with training.computing():
            state, batches = training.begin()
            losses.append(time_fit(state, batches, Timer(), lambda state: None)[1])
    assert losses[0] == losses[1]
    assert torch.equal(before, torch.random.get_rng_state())
    assert training.images == 3 * 128


def test_images_of_several_epochs(mnist: Dataset) -> None:
    """A short last batch counts for what it holds."""
    setting = Setting(
        device="cpu", precision="fp32", global_batch_size=50_000, threads=1, kernels="torch"
    )
    counts = [Training(setting, resolve_config(), mnist, steps).images for steps in (1, 2, 3)]
    assert counts == [50_000, 60_000, 110_000]


@pytest.mark.parametrize(
    "config",
    [
        ModelConfig(),
        ModelConfig(stages=((8, "conv1-16", "lrn"), (8,)), hidden=()),
        ModelConfig(architecture="vgg-a", hidden=(16,), image_size=32),
        ModelConfig(architecture="vgg-c", hidden=(16, 16), image_size=32, in_channels=3),
    ],
)
def test_flops_are_what_torch_counts(config: ModelConfig) -> None:
    """The formula agrees with torch.utils.flop_counter to the last operation."""
    assert flops_per_image(config) == count_flops_per_image(config)
