"""The hardware: description, energy counters, FLOP per image and peak FLOP/s.

Sources: Linux's powercap interface (Documentation/power/powercap/powercap.rst); NVML's
nvmlDeviceGetTotalEnergyConsumption, Volta and later.
"""

from __future__ import annotations

import functools
import itertools
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils import collect_env
from torch.utils.flop_counter import FlopCounterMode

from vggnet.compare.measure import Timer
from vggnet.compare.result import Accelerator, Machine
from vggnet.config import ModelConfig
from vggnet.engine.environment import describe_environment
from vggnet.model.vgg import VGG, build_network

_POWERCAP = Path("/sys/class/powercap")

_PEAK_SIDE = {"cpu": 2048}
"""Side of the matrices whose product shows the peak: 17 GFLOP on a CPU."""
_GPU_PEAK_SIDE = 8192
"""1.1 TFLOP: about 10 ms on a GPU of 100 TFLOP/s."""
_PEAK_PRODUCTS = 6

_CPU_CLOCKS = "cpu[0-9]*/cpufreq/scaling_cur_freq"
_PATIENCE = 1.0
"""Seconds to wait for an energy counter to change."""
_ENOUGH_INTERVALS = 10
"""Updates of an energy counter within a repeat, for an error of at most about 10 %."""


class Rapl:
    """Sum of the energy counters of all CPU packages.

    Args:
        root: Linux's powercap folder.

    Raises:
        OSError: There is no counter, or this user must not read it.
    """

    name = "RAPL, whole CPU packages"

    def __init__(self, root: Path = _POWERCAP) -> None:
        # intel-rapl:0 is a package (also on AMD), intel-rapl:0:0 a part of it.
        self._zones = sorted(
            zone for zone in root.glob("intel-rapl:*") if zone.name.count(":") == 1
        )
        if not self._zones:
            raise FileNotFoundError(f"no RAPL in {root}")
        self._ranges = [_microjoules(zone / "max_energy_range_uj") for zone in self._zones]
        self._last = [_microjoules(zone / "energy_uj") for zone in self._zones]
        self._total = 0

    def __call__(self) -> float:
        """Return the joules since this meter was built, corrected for counters that wrap."""
        for index, zone in enumerate(self._zones):
            now = _microjoules(zone / "energy_uj")
            # A range is 65 kJ or more: minutes at full load, and every repeat reads it.
            self._total += (now - self._last[index]) % (self._ranges[index] + 1)
            self._last[index] = now
        return self._total / 1e6


def _microjoules(path: Path) -> int:
    return int(path.read_text())


@dataclass(frozen=True)
class Meter:
    """An energy counter and its resolution in time."""

    read: Callable[[], float]
    """Returns the joules since some fixed moment."""
    interval: float
    """Seconds between updates of the counter."""

    def resolves(self, seconds: float) -> bool:
        """Whether the counter is updated often enough within a measurement."""
        return seconds >= _ENOUGH_INTERVALS * self.interval


def find_meter(device: torch.device) -> Meter | None:
    """Return a device's energy meter; None if there is none that can be read."""
    try:
        read = Rapl() if device.type == "cpu" else _open_nvml_energy(device)
        interval = read and measure_interval(read)
    except (OSError, ValueError):
        return None
    return Meter(read, interval) if read and interval else None


def measure_interval(
    read: Callable[[], float], clock: Callable[[], float] = time.perf_counter
) -> float | None:
    """Return the longest of three intervals between changes; None if it hardly changes."""
    started, last = clock(), read()
    changes: list[float] = []
    while len(changes) < 4:
        now, value = clock(), read()
        if now - started > _PATIENCE:
            return None
        if value != last:
            last = value
            changes.append(now)
    return max(after - before for before, after in itertools.pairwise(changes))


def read_clock(device: torch.device, cpus: Path = Path("/sys/devices/system/cpu")) -> float | None:
    """Return the current clock rate in MHz: the fastest core's or the SMs'; None if unknown."""
    if device.type == "cpu":
        try:
            return max(int(path.read_text()) for path in cpus.glob(_CPU_CLOCKS)) / 1000  # from kHz
        except (OSError, ValueError):
            return None
    if opened := _open_nvml(device):
        nvml, handle = opened
        try:
            return float(nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM))
        except nvml.NVMLError:
            return None
    return None


def describe_machine(devices: Sequence[torch.device]) -> Machine:
    """Describe this machine and its devices; collect_env takes one or two seconds."""
    found = describe_environment()
    same = ("system", "cpu", "cpu_isa", "cpus", "usable_cores", "memory_gib")
    return Machine(
        **{name: found[name] for name in (*same, "python", "torch", "vggnet")},
        host=platform.node(),
        accelerators=tuple(describe_accelerator(one) for one in devices if one.type != "cpu"),
        cuda=torch.version.cuda,
        tf32=_describe_tf32(),
        collect_env=collect_env.get_pretty_env_info(),  # type: ignore[no-untyped-call]
    )


def _describe_tf32() -> str:
    cudnn: Any = torch.backends.cudnn
    convolutions = "on" if cudnn.conv.fp32_precision == "tf32" else "off"
    products = "on" if torch.backends.cuda.matmul.fp32_precision == "tf32" else "off"
    return (
        f"torch's setting: convolutions {convolutions}, matrix products {products}; "
        "off for fp32 rows, on for tf32 rows"
    )


def describe_accelerator(device: torch.device) -> Accelerator:
    """Describe a device; with NVML also its driver, power limit and clock rates."""
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


def _open_nvml_energy(device: torch.device) -> Callable[[], float] | None:
    opened = _open_nvml(device)
    if opened is None:
        return None
    nvml, handle = opened
    try:
        nvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except nvml.NVMLError:
        return None
    return lambda: float(nvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1000  # from mJ


@functools.cache
def _open_nvml(device: torch.device) -> tuple[Any, Any] | None:
    """Return NVML and its handle of a CUDA device, found by UUID: NVML's order differs."""
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


def flops_per_image(config: ModelConfig) -> int:
    """Compute the FLOP of one image's training step; a multiply-add counts as two.

    Convolutions (direct) and fully connected layers only: the forward pass, the gradients of
    the weights, and the gradients of the inputs of every layer but the first.
    """
    side, total, first = config.image_size, 0, True
    for layer in VGG(config).modules():
        if isinstance(layer, nn.Conv2d):
            forward = 2 * layer.weight.numel() * side * side
        elif isinstance(layer, nn.MaxPool2d):
            side //= 2
            continue
        elif isinstance(layer, nn.Linear):
            forward = 2 * layer.weight.numel()
        else:
            continue
        total += forward * (2 if first else 3)
        first = False
    return total


def count_flops_per_image(config: ModelConfig) -> int:
    """Count the same with torch's own counter."""
    network = build_network(config, 0)
    images = torch.zeros(1, config.in_channels, config.image_size, config.image_size)
    with FlopCounterMode(display=False) as counter:
        network(images).sum().backward()
    return int(counter.get_total_flops())


def measure_peak(device: torch.device, precision: str, timer: Timer) -> float:
    """Return the FLOP/s of a large matrix product: the best of five after one warm-up.

    Call it inside `Workload.computing`, which sets threads and TF32.
    """
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32)
    side = _PEAK_SIDE.get(device.type, _GPU_PEAK_SIDE)
    left, right = (torch.rand(side, side, device=device).to(dtype) for _ in range(2))
    product = torch.empty(side, side, device=device, dtype=dtype)
    seconds = [
        timer.time(device, lambda: torch.mm(left, right, out=product))
        for _ in range(_PEAK_PRODUCTS)
    ]
    return float(2 * side**3 / min(seconds[1:]))
