"""When checkpoints are due, and which signals stop a run."""

from __future__ import annotations

import contextlib
import re
import signal
from collections.abc import Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vggnet.errors import ConfigError
from vggnet.run.checkpointing import CheckpointSchedule, stop_requests


@given(st.text(max_size=30) | st.from_regex(r"[0-9.]*s?", fullmatch=True))
@example("9" * 5000)
@example("9" * 400 + "s")
@example("٣")
@example("10\n")
def test_an_interval_is_valid_or_refused(every: str) -> None:
    """No text ends in another error, and the message stays short."""
    try:
        CheckpointSchedule(every)
    except ConfigError as error:
        assert len(str(error)) < 150  # noqa: PT017
    else:
        assert re.fullmatch(r"[0-9.]+s?", every)


def test_steps_and_seconds() -> None:
    """An interval in steps is counted from the last checkpoint; one in seconds asks once."""
    schedule = CheckpointSchedule("10")
    schedule.start_from(5)
    assert [step for step in range(5, 20) if schedule.due_by_steps(step)] == list(range(15, 20))
    assert not schedule.due_by_time()
    schedule = CheckpointSchedule("0.000000001s")
    assert [schedule.due_by_time() for _ in range(3)] == [True, False, False]
    schedule.saved(1, 0.1)
    assert schedule.due_by_time()
    assert not schedule.due_by_steps(1000)


@pytest.fixture
def ignoring() -> Iterator[list[signal.Signals]]:
    """Signals that this process ignores, as one that was started by nohup does."""
    numbers = [signal.SIGINT, signal.SIGHUP]
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    yield numbers
    for number, handler in before.items():
        signal.signal(number, handler)


def test_an_ignored_signal_stays_ignored(ignoring: list[signal.Signals]) -> None:
    """It requests nothing, however often it comes; SIGTERM, which is not ignored, does."""
    with stop_requests() as requested:
        for number in ignoring * 2:
            signal.raise_signal(number)
            assert not requested()
        signal.raise_signal(signal.SIGTERM)
        assert requested()
    assert [signal.getsignal(number) for number in ignoring] == [signal.SIG_IGN] * 2


@pytest.fixture(params=["SIGINT", "SIGTERM", "SIGHUP"])
def handled(request: pytest.FixtureRequest) -> Iterator[signal.Signals]:
    """A signal that ends nothing if nobody else handles it."""
    number: signal.Signals = getattr(signal, request.param)
    before = signal.signal(number, lambda *_: None)
    yield number
    signal.signal(number, before)


def test_a_second_signal_acts_at_once(handled: signal.Signals) -> None:
    """The first one is a request; afterwards the handlers are as before."""
    before = signal.getsignal(handled)
    with contextlib.suppress(KeyboardInterrupt), stop_requests() as requested:
        signal.raise_signal(handled)
        assert requested()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(handled)
    assert signal.getsignal(handled) == before
