"""One process at a time, where the system has locks for files."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Wait until no other process holds the lock file `path`.

    It only saves work: what is done under it must be right without it too.
    """
    with path.open("w") as file:
        # A platform or a file system without locks; imported here, for Windows has no fcntl.
        with contextlib.suppress(ImportError, OSError):
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield
