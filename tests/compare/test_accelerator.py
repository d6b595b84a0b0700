"""On a simulated accelerator, every measurement of a comparison contains the device's work."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from accelerator import DEVICE, Machine, accelerator
from vggnet.compare.hardware import measure_peak
from vggnet.compare.measure import Timer, Workload, time_fit, time_parts, time_steps
from vggnet.compare.result import Setting
from vggnet.data.dataset import Dataset, LabeledImages
from vggnet.engine.fit import TrainState
from vggnet.recipes import resolve_config

IMAGES = LabeledImages(
    np.random.default_rng(0).integers(0, 255, (100, 1, 28, 28), dtype=np.uint8),
    np.arange(100) % 10,
    10,
    "noise",
)
CONFIG = resolve_config(
    {"model": {"stages": "8/8", "hidden": "8"}, "train": {"global_batch_size": 32}}
)


@pytest.fixture
def machine() -> Iterator[Machine]:
    """The simulated accelerator, on which an operation takes ten times as long as its start."""
    with accelerator() as machine:
        yield machine


def workload(mnist: Dataset, steps: int = 8) -> Workload:
    """Return a small training on the device."""
    setting = Setting.model_construct(  # no user can name this device
        device=str(DEVICE), precision="fp32", global_batch_size=32, threads=None, kernels="torch"
    )
    return Workload(setting, CONFIG, replace(mnist, train=IMAGES, test=IMAGES), steps)


def timer(machine: Machine, waits: bool = True) -> Timer:
    """Return the machine's clock, with the product's own wait or, as a fault, without."""
    clock = Timer(clock=lambda: machine.now)
    return clock if waits else replace(clock, wait=lambda device: None)


def ignore(state: TrainState) -> None:
    """Do nothing after a step."""


def test_a_training_takes_as_long_as_its_work(machine: Machine, mnist: Dataset) -> None:
    """Two trainings are timed to the end of the device's work."""
    work = workload(mnist)
    with work.computing():
        state, batches = work.begin()
        other = work.build_state()
        started = len(machine.operations)
        seconds, losses = time_fit([state, other], batches, timer(machine), ignore)
    expected = (len(machine.operations) - started) * machine.work_seconds / 2
    assert len(losses) == 8
    assert seconds == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("waits", [True, False])
def test_steps_take_as_long_as_their_work(machine: Machine, mnist: Dataset, waits: bool) -> None:
    """Each step's time is that of its own operations, or of their start alone without a wait."""
    work = workload(mnist)
    with work.computing():
        state, batches = work.begin()
        started = len(machine.operations)
        seconds = time_steps(state, batches, timer(machine, waits))
    per_step = (len(machine.operations) - started) / len(seconds) * machine.work_seconds
    inner = seconds[1:3] + seconds[5:7]  # neither the first nor the last of an epoch
    assert all((one == pytest.approx(per_step, rel=0.2)) == waits for one in inner)


@pytest.mark.parametrize("waits", [True, False])
def test_parts_add_up(machine: Machine, mnist: Dataset, waits: bool) -> None:
    """The parts of a step add up to it, each with its own work."""
    work = workload(mnist)
    with work.computing():
        parts = time_parts(*work.begin(), timer(machine, waits))
    assert parts is not None
    named = parts.batch_ms, parts.forward_ms, parts.backward_ms, parts.optimizer_ms, parts.other_ms
    assert sum(named) == pytest.approx(parts.step_ms, rel=0.05)
    assert all(named)
    work_ms = 1000 * machine.work_seconds
    assert (parts.forward_ms > 9 * work_ms) == waits  # nine operations at least


@pytest.mark.parametrize("waits", [True, False])
def test_the_peak_is_that_of_a_product(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, waits: bool
) -> None:
    """The peak counts a product's own time; without a wait it would be the launch's."""
    monkeypatch.setattr("vggnet.compare.hardware._GPU_PEAK_SIDE", 8)
    flops = 2 * 8**3 / machine.work_seconds
    found = measure_peak(DEVICE, "fp32", timer(machine, waits))
    assert (found == pytest.approx(flops, rel=0.2)) == waits
