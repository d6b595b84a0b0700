"""File locks, so that only one process at a time does some work."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

_BEAT = 1.0
"""Seconds after which the process that holds a lock shows again that it runs."""

_PATIENCE = 30.0
"""Seconds without a sign of life after which others go on without the lock."""


@contextlib.contextmanager
def one_at_a_time(path: Path) -> Iterator[bool]:
    """Wait until no other process holds the lock file `path`, then hold it.

    The lock only saves work: the work must also be correct without it, because some
    file systems have no locks, and because a process that holds one can be stopped.

    Yields:
        Whether the lock is held.

    Raises:
        OSError: The file cannot be written.
    """
    with path.open("a+", encoding="utf-8") as file:
        held = False
        with contextlib.suppress(ImportError, OSError):
            held = _wait_for(file, path)
        if not held:
            yield False
            return
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        done = threading.Event()
        beats = threading.Thread(target=_beat, args=(file, done), daemon=True)
        beats.start()
        try:
            yield True
        finally:
            done.set()
            beats.join()


def _beat(file: IO[str], done: threading.Event) -> None:
    """Change the lock file's time as long as this process runs."""
    while not done.wait(_BEAT):
        with contextlib.suppress(OSError):
            os.utime(file.name)


def _wait_for(file: IO[str], path: Path) -> bool:
    """Lock a file, or return False if the process that holds it has stopped."""
    seen, since, told = 0, time.monotonic(), False
    while not _try_lock(file):
        changed = os.fstat(file.fileno()).st_mtime_ns
        if changed != seen:
            seen, since = changed, time.monotonic()
        elif time.monotonic() - since > _PATIENCE:
            _tell(f"{_holder(path)} has stopped; going on without it")
            return False
        elif not told and time.monotonic() - since > _BEAT / 2:
            _tell(f"waiting for {_holder(path)}, which holds {path}")
            told = True
        time.sleep(0.1)
    return True


def _tell(words: str) -> None:
    print(f"vggnet: {words}", file=sys.stderr)


def _holder(path: Path) -> str:
    """Return what to call the process that holds a lock."""
    with contextlib.suppress(OSError, ValueError):  # Windows does not let others read it
        return f"process {int(path.read_text(encoding='utf-8'))}"
    return "another process"


def _try_lock(file: IO[str]) -> bool:
    """Lock a file, unless another process holds it.

    Raises:
        OSError: The file system has no locks.
    """
    try:
        if sys.platform == "win32":
            import msvcrt

            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True
