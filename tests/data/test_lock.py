"""Locks exclude other processes on every system."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
import time
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

from vggnet.data.lock import one_at_a_time


def test_windows_locks_wait_for_the_other_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With msvcrt, a lock that another process holds is tried again until it is free."""
    attempts = []

    def locking(descriptor: int, mode: int, count: int) -> None:
        attempts.append((mode, count))
        if len(attempts) < 3:
            raise PermissionError(13, "Permission denied")

    msvcrt = types.SimpleNamespace(locking=locking, LK_NBLCK=2)
    monkeypatch.setitem(sys.modules, "msvcrt", msvcrt)  # type: ignore[arg-type]
    monkeypatch.setattr(sys, "platform", "win32")
    with one_at_a_time(tmp_path / "lock"):
        assert attempts == [(2, 1)] * 3


HOLD = """
import sys, time
from pathlib import Path
from vggnet.data.lock import one_at_a_time
with one_at_a_time(Path(sys.argv[1])) as held:
    print(held, flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def holder(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Hold a lock in another process, until its input ends."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, path], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "True\n"
        yield process
        process.kill()


def test_a_process_that_works_is_waited_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The message says for which process."""
    path = tmp_path / "lock"
    with holder(path) as process:
        ending = threading.Timer(1.5, process.stdin.close)  # type: ignore[union-attr]
        ending.start()
        with one_at_a_time(path) as held:
            assert held
            assert not ending.is_alive()
    assert f"waiting for process {process.pid}, which holds {path}" in capsys.readouterr().err


def test_a_process_shows_that_it_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file's time changes as long as the lock is held, so others wait on."""
    monkeypatch.setattr("vggnet.data.lock._BEAT", 0.01)
    with one_at_a_time(tmp_path / "lock"):
        for _ in range(2):
            before = (tmp_path / "lock").stat().st_mtime_ns
            while (tmp_path / "lock").stat().st_mtime_ns == before:
                time.sleep(0.01)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGSTOP")
def test_a_process_that_has_stopped_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is named, and the work is done without the lock."""
    monkeypatch.setattr("vggnet.data.lock._PATIENCE", 1.5)
    with holder(tmp_path / "lock") as process:
        process.send_signal(signal.SIGSTOP)
        with one_at_a_time(tmp_path / "lock") as held:
            assert not held
    assert f"process {process.pid} has stopped; going on without it" in capsys.readouterr().err
