"""Versions and hardware, for results and issue reports."""

from __future__ import annotations

import os
import platform
import sys
from typing import Any

import numpy
import torch

from vggnet import __version__
from vggnet.engine.device import PREFERENCE, why_unavailable
from vggnet.engine.processor import cpu_name, usable_cores


def describe_environment() -> dict[str, Any]:
    """Return versions, CPU and devices as plain values for JSON."""
    return {
        "vggnet": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "system": platform.platform(),
        "cpu": cpu_name(),
        "cpu_isa": torch.backends.cpu.get_cpu_capability(),
        "cpus": os.cpu_count(),
        "usable_cores": usable_cores(),
        "threads": torch.get_num_threads(),
        "memory_gib": _memory_gib(),
        "devices": {kind: _describe(kind) for kind in reversed(PREFERENCE)},
    }


def _memory_gib() -> float | None:
    if sys.platform == "win32":  # has no sysconf
        return None
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError):
        return None


def _describe(kind: str) -> str:
    """Name the devices of a kind, or explain why there is none."""
    reason = why_unavailable(kind)
    if reason:
        return f"not available: {reason}"
    if kind == "cuda":
        names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
        return ", ".join(names)
    return "available"
