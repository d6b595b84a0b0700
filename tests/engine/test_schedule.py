"""Learning rate and image size are pure functions of how much of the run is done."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vggnet.config import TrainConfig
from vggnet.engine.schedule import count_steps, lr_at, side_at


@given(total=st.integers(1, 5000), warmup=st.floats(0, 0.99), peak=st.floats(1e-6, 1))
def test_linear_schedule(total: int, warmup: float, peak: float) -> None:
    """Every rate lies in (0, peak]; they rise through the warm-up and fall after it."""
    config = TrainConfig(schedule="linear", warmup_fraction=warmup, peak_lr=peak)
    rates = [lr_at((step + 0.5) / total, config) for step in range(total)]
    assert all(0 < rate <= peak * (1 + 1e-9) for rate in rates)
    top = rates.index(max(rates))
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert abs(top + 0.5 - warmup * total) <= 1


def test_constant_schedule_is_constant() -> None:
    """The article's rate does not change."""
    config = TrainConfig()
    assert {lr_at(step / 10, config) for step in range(10)} == {1e-3}


@pytest.mark.parametrize(
    ("epochs", "steps"), [(1, 469), (0.5, 234), (10, 4690), (1e-9, 1), (0.75, 352)]
)
def test_epochs_may_be_a_fraction(epochs: float, steps: int) -> None:
    """A run has the nearest whole number of steps, and at least one."""
    assert count_steps(epochs, 469) == steps


@given(
    done=st.floats(0, 1),
    growth=st.floats(0, 0.99),
    maps=st.integers(1, 16),
    pools=st.integers(1, 5),
)
def test_images_grow_to_their_size(done: float, growth: float, maps: int, pools: int) -> None:
    """A side is halved evenly by the pools, at least half of the whole, and whole after growth."""
    multiple = 2**pools
    full = maps * multiple
    side = side_at(done, growth, full, multiple)
    assert side % multiple == 0
    assert full / 2 <= side <= full
    assert side == full or done < growth
    assert side <= side_at(min(1.0, done + 0.1), growth, full, multiple)


def test_mnist_grows_in_four_steps() -> None:
    """28 pixels and two pools: 16, 20, 24 and 28, in equal parts of the growth."""
    sides = [side_at((step + 0.5) / 100, 0.75, 28, 4) for step in range(100)]
    assert [sides.count(side) for side in (16, 20, 24, 28)] == [25, 25, 25, 25]
