"""Joules, where a counter can be read: RAPL for a CPU, NVML for an NVIDIA GPU.

Sources: Linux's powercap interface (Documentation/power/powercap/powercap.rst); NVML's
nvmlDeviceGetTotalEnergyConsumption, Volta and later.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from vggnet.compare.result import Accelerator

_POWERCAP = Path("/sys/class/powercap")

Meter = Callable[[], float]
"""Returns the joules since some fixed moment."""


class Rapl:
    """The energy counters of all CPU packages, added up.

    Args:
        root: Where Linux shows them.

    Raises:
        OSError: There are none, or this user may not read them.
    """

    name = "RAPL, whole CPU packages"

    def __init__(self, root: Path = _POWERCAP) -> None:
        # intel-rapl:0 is a package (AMD's as well), intel-rapl:0:0 a part of it.
        self._zones = sorted(
            zone for zone in root.glob("intel-rapl:*") if zone.name.count(":") == 1
        )
        if not self._zones:
            raise FileNotFoundError(f"no RAPL in {root}")
        self._ranges = [_microjoules(zone / "max_energy_range_uj") for zone in self._zones]
        self._last = [_microjoules(zone / "energy_uj") for zone in self._zones]
        self._total = 0

    def __call__(self) -> float:
        """Return the joules since this meter was made; counters that wrapped are unwrapped."""
        for index, zone in enumerate(self._zones):
            now = _microjoules(zone / "energy_uj")
            # Ranges are 65 kJ and more: minutes at full load, and it is read at every repeat.
            self._total += (now - self._last[index]) % (self._ranges[index] + 1)
            self._last[index] = now
        return self._total / 1e6


def find_meter(device: torch.device) -> Meter | None:
    """Return what counts a device's joules, None where nothing can be read."""
    if device.type == "cpu":
        try:
            return Rapl()
        except (OSError, ValueError):
            return None
    opened = _open_nvml(device)
    if opened is None:
        return None
    nvml, handle = opened
    try:
        nvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except nvml.NVMLError:
        return None
    return lambda: float(nvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1000  # from mJ


def describe_accelerator(device: torch.device) -> Accelerator:
    """Say what a device is; driver, power limit and clocks where NVML can be read."""
    if device.type != "cuda":
        return Accelerator(device=str(device), name=device.type)
    properties = torch.cuda.get_device_properties(device)
    known: dict[str, Any] = {
        "device": str(device),
        "name": properties.name,
        "memory_gib": round(properties.total_memory / 2**30, 1),
    }
    if opened := _open_nvml(device):
        nvml, handle = opened
        streaming = nvml.NVML_CLOCK_SM
        for name, read in {
            "driver": nvml.nvmlSystemGetDriverVersion,
            "power_limit_watts": lambda: nvml.nvmlDeviceGetEnforcedPowerLimit(handle) / 1000,
            "clock_mhz": lambda: float(nvml.nvmlDeviceGetClockInfo(handle, streaming)),
            "highest_clock_mhz": lambda: float(nvml.nvmlDeviceGetMaxClockInfo(handle, streaming)),
        }.items():
            try:
                known[name] = read()
            except nvml.NVMLError:
                continue
    return Accelerator(**known)


def _open_nvml(device: torch.device) -> tuple[Any, Any] | None:
    """Return NVML and its handle of a CUDA device; found by UUID, as its order is its own."""
    if device.type != "cuda":
        return None
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
        return pynvml, pynvml.nvmlDeviceGetHandleByUUID(uuid)
    except pynvml.NVMLError:
        return None


def _microjoules(path: Path) -> int:
    return int(path.read_text())
