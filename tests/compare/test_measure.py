"""Timings include all of the device's work, and the parts add up to the step."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from compare.samples import make_row
from conftest import make_batches
from vggnet.compare.hardware import count_flops_per_image, flops_per_image
from vggnet.compare.measure import (
    Timer,
    Workload,
    has_settled,
    time_fit,
    time_parts,
    time_steps,
)
from vggnet.config import ModelConfig, TrainConfig
from vggnet.data.batches import Batches
from vggnet.data.dataset import Dataset, LabeledImages
from vggnet.engine.device import computing
from vggnet.engine.fit import TrainState, build_state, fit
from vggnet.engine.schedule import count_steps
from vggnet.engine.session import Session
from vggnet.model.vgg import build_network
from vggnet.recipes import resolve_config
from vggnet.run.preflight import complete_training

CPU = torch.device("cpu")
SMALL = ModelConfig(stages=((8,), (8,)), hidden=(8,), dropout=0.0)


@dataclass
class FakeDevice:
    """An asynchronous device, and a clock that it shares with the host."""

    now: float = 0.0
    """The host's clock in seconds."""
    free_at: float = 0.0
    """When the device will be idle."""
    given: list[float] = field(default_factory=list)

    def enqueue(self, seconds: float) -> None:
        """Start work on the device; the call takes the host a millisecond."""
        self.now += 0.001
        self.free_at = max(self.free_at, self.now) + seconds
        self.given.append(seconds)

    def timer(self) -> Timer:
        """Return a timer with this clock and this wait."""
        return Timer(clock=lambda: self.now, wait=self.wait)

    def wait(self, device: torch.device) -> None:
        """Advance the clock until the device is idle."""
        self.now = max(self.now, self.free_at)


class OnDevice(nn.Module):
    """A network whose forward pass also starts work on the fake device."""

    def __init__(self, network: nn.Module, device: FakeDevice, seconds: float) -> None:
        super().__init__()
        self.network, self.device, self.seconds = network, device, seconds

    def forward(self, images: Tensor) -> Tensor:
        self.device.enqueue(self.seconds)
        logits: Tensor = self.network(images)
        return logits


def workload_of(steps: int) -> Workload:
    """Build a workload whose images are never used."""
    return Workload(make_row().setting, resolve_config(), None, steps)  # type: ignore[arg-type]


def begin(steps_of_three: float = 1) -> TrainState:
    """Start a training with three steps per epoch."""
    config = TrainConfig(epochs=steps_of_three)
    return build_state(build_network(SMALL, 0), config, CPU, Session())


@given(
    before=st.lists(st.floats(0, 100), max_size=5),
    inside=st.lists(st.floats(0, 100), min_size=1, max_size=10),
)
def test_a_timed_region_holds_its_own_work(before: list[float], inside: list[float]) -> None:
    """A timed region starts and ends with an idle device, whatever was queued before."""
    device = FakeDevice()
    for seconds in before:
        device.enqueue(seconds)

    def work() -> None:
        for seconds in inside:
            device.enqueue(seconds)

    found = device.timer().time(CPU, work)
    assert found >= sum(inside)
    assert found <= sum(inside) + 0.001 * len(inside) + 1e-6


def test_time_fit_waits_for_the_device(batches: Batches) -> None:
    """Three steps of `fit` with 10 s of device work each take 30 s, not 3 ms."""
    device = FakeDevice()
    state = begin()
    state.replica = OnDevice(state.network, device, 10.0)
    device.enqueue(1000.0)
    seconds, losses = time_fit([state], batches, device.timer(), lambda state: None)
    assert seconds == pytest.approx(30, abs=0.01)
    assert len(losses) == 3
    assert device.given[1:] == [10.0] * 3


def test_several_trainings_are_timed_together(batches: Batches) -> None:
    """Two trainings of 30 s take 30 s each; the losses are those of one."""
    device = FakeDevice()
    states = [begin(), begin()]
    for state in states:
        state.replica = OnDevice(state.network, device, 10.0)
    seconds, losses = time_fit(states, batches, device.timer(), lambda state: None)
    assert seconds == pytest.approx(30, abs=0.01)
    assert len(losses) == 3


@given(step_seconds=st.floats(1e-6, 100), steps=st.integers(1, 1000), minimum=st.floats(0.1, 10))
def test_passes_take_the_minimum_time(step_seconds: float, steps: int, minimum: float) -> None:
    """Enough passes are planned for the minimum duration, and one is enough for a slow device."""
    passes = workload_of(steps).passes(step_seconds, minimum)
    assert passes * steps * step_seconds >= minimum
    assert passes == 1 or (passes - 1) * steps * step_seconds < 1.2 * minimum


@pytest.mark.parametrize(
    ("seconds", "settled"),
    [
        ([0.1] * 5, False),
        ([0.1] * 6, True),
        ([0.01] * 29, False),
        ([0.01] * 31, True),
        ([0.4, 0.3, 0.2, 0.15, 0.12, 0.1], False),
        ([0.4, 0.3, 0.2, 0.15, 0.12, 0.1, *[0.1] * 10], True),
        ([2.0, 1.5, 1.0, 0.5, 0.4, 0.3], True),
        ([0.0001] * 1000, True),
    ],
)
def test_warm_up_ends_when_rates_settle(seconds: list[float], settled: bool) -> None:
    """At least 6 steps and 0.3 s, then until rates settle, at most 5 s or 1000 steps."""
    assert has_settled(seconds, 0.3) is settled


def test_time_steps_ends_early(batches: Batches) -> None:
    """The training ends after the step at which there are enough."""
    state = begin(10)
    assert len(time_steps(state, batches, Timer(), lambda seconds: len(seconds) == 4)) == 4
    assert state.step == 4


def test_time_steps_waits_after_each_step(batches: Batches) -> None:
    """Each step's time is its own device work."""
    device = FakeDevice()
    state = begin()
    state.replica = OnDevice(state.network, device, 10.0)
    assert time_steps(state, batches, device.timer()) == pytest.approx([10.0] * 3, abs=0.01)


def test_parts_get_their_own_device_work(batches: Batches) -> None:
    """Device work of the forward pass counts as forward only."""
    device = FakeDevice()
    state = begin(4)
    state.replica = OnDevice(state.network, device, 10.0)
    state.optimizer.register_step_pre_hook(lambda *_: device.enqueue(3.0))
    parts = time_parts(state, batches, device.timer())
    assert parts is not None
    assert parts.forward_ms == pytest.approx(10_000, abs=2)
    # This hook runs before the one that marks the optimizer, so its work counts as backward.
    assert parts.backward_ms == pytest.approx(3_000, abs=2)
    assert parts.optimizer_ms == parts.batch_ms == 0
    assert parts.step_ms == pytest.approx(13_000, abs=4)


def test_parts_add_up_to_the_step(few: LabeledImages) -> None:
    """On a real clock the parts add up to the whole step within 5 %.

    Split and whole steps alternate in one run. The clock is this process's CPU time with one
    thread, so other processes do not count.
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

    # A process that shares the core sometimes slows one kind of step by 5 %.
    assert any(measure() == pytest.approx(1, abs=0.05) for _ in range(3))


def test_splitting_does_not_change_the_training(batches: Batches) -> None:
    """The weights are the same with hooks, and the hooks are removed afterwards."""
    plain, watched = begin(2), begin(2)
    for _ in fit(plain, batches):
        pass
    time_parts(watched, batches, Timer())
    for ours, theirs in zip(watched.network.parameters(), plain.network.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert not watched.replica._forward_hooks
    assert not watched.replica._forward_pre_hooks


def test_every_repeat_is_the_same_training(mnist: Dataset) -> None:
    """Two repeats have identical losses, dropout included, and torch's random state is restored."""
    config = resolve_config({"model": {"stages": ((8,), (8,)), "hidden": (8,), "dropout": 0.5}})
    workload = Workload(make_row(threads=1).setting, config, mnist, 3)
    before = torch.random.get_rng_state()
    losses = []
    for _ in range(2):
        with workload.computing():
            state, batches = workload.begin()
            losses.append(time_fit([state], batches, Timer(), lambda state: None)[1])
    assert losses[0] == losses[1]
    assert torch.equal(before, torch.random.get_rng_state())
    assert workload.images == 3 * 128


def test_images_of_a_workload(mnist: Dataset) -> None:
    """A short last batch of an epoch counts with its real size."""
    setting = make_row(global_batch_size=50_000).setting
    counts = [Workload(setting, resolve_config(), mnist, steps).images for steps in (1, 2, 3)]
    assert counts == [50_000, 60_000, 110_000]


def test_a_cold_start_takes_the_steps_of_its_row(mnist: Dataset) -> None:
    """The recipe's minimum of steps does not apply to `vggnet train` with a row's settings."""
    settings = Workload(make_row().setting, resolve_config(), mnist, 5).settings()
    images = len(mnist.train)
    epochs = complete_training(settings, images, has_validation=False).train.epochs
    assert count_steps(epochs, -(-images // settings.train.global_batch_size)) == 5


@pytest.mark.parametrize(
    "config",
    [
        ModelConfig(),
        ModelConfig(stages=((8, "conv1-16", "lrn"), (8,)), hidden=()),
        ModelConfig(architecture="vgg-a", hidden=(16,), image_size=32),
        ModelConfig(architecture="vgg-c", hidden=(16, 16), image_size=32, in_channels=3),
    ],
)
def test_flops_match_torchs_counter(config: ModelConfig) -> None:
    """The formula equals torch.utils.flop_counter exactly."""
    assert flops_per_image(config) == count_flops_per_image(config)
