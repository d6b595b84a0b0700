"""How much memory there is for images, and how concurrent decodes share it."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from vggnet.errors import DataError, ImageError

_GIB = 1 << 30


def check_memory(needed: int, what: str, way_out: str = "") -> None:
    """Refuse what does not fit into the free memory, before it is read.

    Args:
        needed: Bytes.
        what: What messages call it.
        way_out: What to do about it, if there is something.

    Raises:
        DataError: It does not fit.
    """
    free = available_bytes()
    if free is not None and needed > free:
        raise DataError(
            f"{what} needs {needed / _GIB:,.2f} GiB of memory, and {free / _GIB:,.2f} GiB are "
            f"free{way_out}"
        )


class MemoryBudget:
    """Bytes that concurrent decodes may use together.

    Args:
        limit: Bytes; None: half of what is free now.
    """

    def __init__(self, limit: int | None = None) -> None:
        if limit is None:
            free = available_bytes()
            limit = free // 2 if free is not None else 1 << 62
        self.limit = limit
        self._used = 0
        self._change = threading.Condition()
        self._large = threading.Lock()

    @contextlib.contextmanager
    def one_large(self, large: bool) -> Iterator[None]:
        """If `large`, wait until no other thread is in here with a large file."""
        with self._large if large else contextlib.nullcontext():
            yield

    @contextlib.contextmanager
    def reserve(self, size: int) -> Iterator[None]:
        """Wait until `size` bytes are free, and hold them.

        Raises:
            ImageError: The whole budget is smaller.
        """
        if size > self.limit:
            raise ImageError(
                f"decoding takes {size / _GIB:,.2f} GiB of memory, more than the "
                f"{self.limit / _GIB:,.2f} GiB that are available"
            )
        with self._change:
            self._change.wait_for(lambda: self._used + size <= self.limit)
            self._used += size
        try:
            yield
        finally:
            with self._change:
                self._used -= size
                self._change.notify_all()


def available_bytes() -> int | None:
    """Return the free memory, limited by the process's control group; None if unknown."""
    found = []
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        line = next(line for line in lines if line.startswith("MemAvailable:"))
        found.append(1024 * int(line.split()[1]))
    found += [*_group_bytes(), *_address_bytes()]
    if not found and sys.platform != "win32":  # which has no sysconf
        with contextlib.suppress(ValueError, OSError):
            found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return max(0, min(found)) if found else None


def _group_bytes() -> Iterator[int]:
    """Yield what this process's control groups leave free; files in their cache count as free."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers == "":  # version 2
                names = ("", "memory.max", "memory.current", "file", "shmem")
            elif "memory" in controllers.split(","):
                names = (
                    "memory", "memory.limit_in_bytes", "memory.usage_in_bytes",
                    "total_cache", "total_shmem",
                )  # fmt: skip
            else:
                continue
            # Inside a container the group is the top of what can be seen.
            for group in (
                Path("/sys/fs/cgroup", names[0]) / path.lstrip("/"),
                Path("/sys/fs/cgroup", names[0]),
            ):
                with contextlib.suppress(OSError, ValueError, KeyError):
                    limit = int((group / names[1]).read_text())  # "max" without a limit
                    used = int((group / names[2]).read_text())
                    lines = (group / "memory.stat").read_text().splitlines()
                    stat = dict(line.split() for line in lines)
                    yield limit - used + int(stat[names[3]]) - int(stat[names[4]])
                    break


def _address_bytes() -> Iterator[int]:
    """Yield what `ulimit -v` leaves free."""
    if sys.platform == "win32":
        return
    with contextlib.suppress(ImportError, OSError):
        import resource

        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        if limit != resource.RLIM_INFINITY:
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            yield limit - pages * resource.getpagesize()
