"""The processor: its name, and how many of its cores a training should use."""

from __future__ import annotations

import ctypes
import math
import os
import platform
import struct
import sys
from collections.abc import Mapping
from pathlib import Path

_SYS = Path("/sys")


def cpu_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Return the name of the processor, as the system calls it."""
    if sys.platform == "win32":
        return _windows_name() or platform.processor()
    if sys.platform == "darwin":
        return _sysctl_text("machdep.cpu.brand_string") or platform.processor()
    try:
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def usable_cores(root: Path = _SYS) -> int:
    """Return the number of physical cores that this process should use.

    It respects affinity and the CPU quota of the cgroup. Hyper-threads of one core count once:
    a second one does not speed up matrix products. Of a processor with cores of several kinds
    only the fast ones count, where the system tells them apart: every thread gets the same
    share of the work, so the slowest core decides when a layer is done.

    Args:
        root: Where Linux shows its hardware.
    """
    if sys.platform == "win32":
        return _windows_cores() or os.cpu_count() or 1
    if sys.platform == "darwin":
        known = ("hw.perflevel0.physicalcpu", "hw.physicalcpu")
        return next(filter(None, map(_sysctl_number, known)), os.cpu_count() or 1)
    everything = range(os.cpu_count() or 1)
    cpus = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else everything
    folder = root / "devices/system/cpu"
    fast = _fast_cpus({_siblings(folder, cpu): cpu for cpu in sorted(cpus, reverse=True)}, root)
    quota = _cgroup_quota(root / "fs/cgroup")
    return max(1, min(fast, math.ceil(quota)) if quota else fast)


def _fast_cpus(cores: Mapping[str, int], root: Path) -> int:
    """Return the number of fast cores.

    Args:
        cores: One logical CPU of each core.
        root: Where Linux shows its hardware. Intel's hybrid processors list their performance
            cores there; Arm's have a capacity for each core, relative to the fastest.
    """
    if listed := _read(root / "devices/cpu_core/cpus"):
        performance = len(set(cores.values()) & _parse_list(listed))
        return performance or len(cores)
    folder = root / "devices/system/cpu"
    texts = [_read(folder / f"cpu{cpu}/cpu_capacity") for cpu in cores.values()]
    if not all(text.isdecimal() for text in texts):
        return len(cores)
    capacities = sorted(map(int, texts), reverse=True)
    # Equal shares on the n fastest cores take as long as 1 / (n × the slowest one's capacity).
    return max(range(1, len(cores) + 1), key=lambda count: count * capacities[count - 1])


def _siblings(folder: Path, cpu: int) -> str:
    """Return the logical CPUs of a core."""
    return _read(folder / f"cpu{cpu}/topology/thread_siblings_list") or str(cpu)


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _parse_list(text: str) -> set[int]:
    """Read Linux's list of CPUs, such as "0-3,8"."""
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return found


def _cgroup_quota(root: Path) -> float | None:
    """Return the CPU quota of the cgroup (v2 or v1) in CPUs; None without a limit."""
    try:
        if (root / "cpu.max").exists():
            quota, period = (root / "cpu.max").read_text().split()
        else:
            quota = (root / "cpu/cpu.cfs_quota_us").read_text()
            period = (root / "cpu/cpu.cfs_period_us").read_text()
        return int(quota) / int(period) if int(quota) > 0 else None
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _sysctl(name: str) -> bytes:
    """Return a value of macOS's sysctl; empty if there is none. Not run on macOS yet."""
    call = ctypes.CDLL(None).sysctlbyname
    size = ctypes.c_size_t(256)
    buffer = ctypes.create_string_buffer(size.value)
    failed = call(name.encode(), buffer, ctypes.byref(size), None, ctypes.c_size_t(0))
    return b"" if failed else buffer.raw[: size.value]


def _sysctl_text(name: str) -> str:
    return _sysctl(name).rstrip(b"\0").decode()


def _sysctl_number(name: str) -> int:
    return int.from_bytes(_sysctl(name), "little")


def _windows_name() -> str:
    """Return the processor's name from Windows' registry. Not run on Windows yet."""
    if sys.platform == "win32":
        import winreg

        key = r"HARDWARE\DESCRIPTION\System\CentralProcessor\0"
        try:
            with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, key) as opened:
                return str(winreg.QueryValueEx(opened, "ProcessorNameString")[0]).strip()
        except OSError:
            pass
    return ""


def _windows_cores() -> int:
    """Return the number of the fastest physical cores; 0 if unknown. Not run on Windows yet."""
    if sys.platform == "win32":
        size = ctypes.c_ulong(0)
        call = ctypes.windll.kernel32.GetLogicalProcessorInformationEx
        call(0, None, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        if call(0, buffer, ctypes.byref(size)):
            return count_fast_cores(buffer.raw[: size.value])
    return 0


def count_fast_cores(records: bytes) -> int:
    """Count the cores of the highest efficiency class in what Windows tells about them.

    Args:
        records: SYSTEM_LOGICAL_PROCESSOR_INFORMATION_EX structures of physical cores: two
            32-bit numbers, the second of which is the record's size, then the core's flags and
            its class, a byte each.
    """
    classes: list[int] = []
    position = 0
    while position < len(records):
        _, size, _, efficiency = struct.unpack_from("<IIBB", records, position)
        classes.append(efficiency)
        position += size
    return classes.count(max(classes, default=0))
