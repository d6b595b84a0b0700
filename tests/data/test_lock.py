"""Locks exclude other processes on every system."""

from __future__ import annotations

import sys
import types
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
