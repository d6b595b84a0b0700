"""What can happen between two steps: a checkpoint is due, or the run is asked to stop."""

from __future__ import annotations

import math
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from vggnet.errors import ConfigError

_SECONDS = 30.0
"""Between two checkpoints, if nothing else is asked for."""

_MOST = 0.01
"""Share of the time that those checkpoints may cost; where they are slow they become rarer."""


class CheckpointSchedule:
    """When a checkpoint is due.

    Args:
        every: Steps, as in "10", or seconds, as in "30s". None: every 30 s, and rarer where
            that would cost more than 1 % of the time.

    Raises:
        ConfigError: It is neither.
    """

    def __init__(self, every: str | None) -> None:
        found = re.fullmatch(r"(\d+)|(\d+(?:\.\d+)?)s", f"{_SECONDS}s" if every is None else every)
        self._steps = int(found[1]) if found and found[1] else 0
        self._pause = float(found[2]) if found and found[2] else math.inf
        if not self._steps and not 0 < self._pause < math.inf:
            raise ConfigError(
                f"checkpoint every {every!r}? Use a number of steps, 10, or of seconds, 30s"
            )
        self._adapts = every is None
        self.start_from(0)

    def start_from(self, step: int) -> None:
        """Count from here."""
        self._last_step, self._last_time, self._said = step, time.perf_counter(), False

    def by_count(self, step: int) -> bool:
        """Whether enough steps were taken, which every process finds at the same one."""
        return bool(self._steps) and step - self._last_step >= self._steps

    def by_clock(self) -> bool:
        """Whether the time has come, by this process's clock; said once a checkpoint."""
        if self._said or time.perf_counter() - self._last_time < self._pause:
            return False
        self._said = True
        return True

    def saved(self, step: int, seconds: float) -> None:
        """Note a checkpoint at a step, and the seconds that it took."""
        self.start_from(step)
        if self._adapts:
            self._pause = max(_SECONDS, seconds / _MOST)


@contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """Turn a first SIGINT and a first SIGTERM into a request; a second of its kind acts at once.

    Only Python's main thread receives signals; in any other nothing is changed.
    """
    requested = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield requested.is_set
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def request(number: int, frame: object) -> None:
        requested.set()
        signal.signal(number, signal.default_int_handler)

    for number in before:
        signal.signal(number, request)
    try:
        yield requested.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
