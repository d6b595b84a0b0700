"""How much memory there is for images."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

from vggnet.errors import DataError

_GIB = 1 << 30


def check_memory(count: int, channels: int, side: int, available: int | None) -> None:
    """Refuse images that do not fit, before any of them is read.

    Args:
        count: Images.
        channels: Bytes a pixel.
        side: Pixels a side.
        available: Bytes to hold them in; None: what the system says is free.

    Raises:
        DataError: They do not fit; with the sum.
    """
    free = available_bytes() if available is None else available
    needed = count * channels * side * side
    if free is not None and needed > free:
        raise DataError(
            f"{count:,} images × {channels} × {side} × {side} bytes are "
            f"{needed / _GIB:,.2f} GiB, and {free / _GIB:,.2f} GiB of memory are free; use fewer "
            f"images or a smaller --image-size"
        )


def available_bytes() -> int | None:
    """Return the memory that is free for use, a container's limit regarded; None if unknown."""
    found = []
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        line = next(line for line in lines if line.startswith("MemAvailable:"))
        found.append(1024 * int(line.split()[1]))
    group = Path("/sys/fs/cgroup")
    with contextlib.suppress(OSError, ValueError):
        limit = int((group / "memory.max").read_text())  # "max" where there is none
        found.append(limit - int((group / "memory.current").read_text()))
    if not found and sys.platform != "win32":  # which has no sysconf
        with contextlib.suppress(ValueError, OSError):
            found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return max(0, min(found)) if found else None
