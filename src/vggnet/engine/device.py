"""Choose, describe and wait for a device; set what it computes with."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vggnet.errors import DeviceError, OutOfMemoryError

PREFERENCE = ("cuda", "mps", "xpu", "cpu")
"""What `auto` tries, in order."""


def why_unavailable(kind: str) -> str | None:
    """Return why this machine has no device of a kind, or None where it has one."""
    match kind:
        case "cpu":
            return None
        case "cuda" if torch.cuda.is_available():
            return _why_no_code()
        case "cuda" if torch.version.cuda is None and torch.version.hip is None:
            return f"torch {torch.__version__} is a build without CUDA"
        case "cuda":
            return "torch has CUDA, but finds no NVIDIA driver or no GPU (try nvidia-smi)"
        case "mps" if torch.backends.mps.is_available():
            return None
        case "mps" if not torch.backends.mps.is_built():
            return f"torch {torch.__version__} is a build without MPS"
        case "mps":
            return "needs macOS 12.3 or later and an Apple GPU"
        case "xpu" if torch.xpu.is_available():
            return None
        case "xpu":
            return f"torch {torch.__version__} finds no Intel GPU"
    return f"unknown kind of device {kind!r}"


def _why_no_code() -> str | None:
    """Return why this torch has no code for the first NVIDIA GPU, or None where it has.

    `is_available` does not look at that; the first operation would end in an error. Code for
    sm_XY runs where the major number is the same and the minor one not less; compute_XY is
    compiled by the driver for whatever is newer.
    """
    built = torch.cuda.get_arch_list()
    if torch.version.hip or not built:
        return None
    mine = torch.cuda.get_device_capability(0)
    for name in built:
        kind, _, digits = name.partition("_")
        number = int("".join(character for character in digits if character.isdigit()))
        theirs = divmod(number, 10)
        if theirs <= mine and (kind == "compute" or theirs[0] == mine[0]):
            return None
    return (
        f"this torch has no code for {torch.cuda.get_device_name(0)} (compute capability "
        f"{mine[0]}.{mine[1]}), only for {', '.join(built)}; install a build that has it"
    )


def choose_device(name: str, local_rank: int = 0) -> torch.device:
    """Turn a device's name into a device that is there; never fall back in silence.

    Args:
        name: "auto", "cpu", "cuda", "cuda:N", "mps", "xpu" or "xpu:N". Without an
            index, cuda and xpu take the one numbered `local_rank`.

    Raises:
        DeviceError: It is not there; the message says why.
    """
    if name == "auto":
        name = next(kind for kind in PREFERENCE if why_unavailable(kind) is None)
    kind, _, index = name.partition(":")
    reason = why_unavailable(kind)
    if reason:
        raise DeviceError(f"--device {name}: {reason}; use --device auto or --device cpu")
    if kind not in ("cuda", "xpu"):
        return torch.device(kind)
    number = int(index) if index else local_rank
    count = torch.cuda.device_count() if kind == "cuda" else torch.xpu.device_count()
    if number >= count:
        raise DeviceError(f"--device {kind}:{number}: there are {count}, numbered from 0")
    return torch.device(kind, number)


def name_device(device: torch.device) -> str:
    """Return what a person calls the device."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    if device.type == "cpu":
        return f"cpu ({cpu_name()})"
    return str(device)


def cpu_name() -> str:
    """Return the processor's model name as its system tells it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def check_precision(precision: str, device: torch.device) -> None:
    """Refuse a number type that the device does not compute with.

    Raises:
        DeviceError: It does not.
    """
    allowed = {"cpu": ("fp32", "bf16"), "mps": ("fp32", "fp16"), "xpu": ("fp32", "bf16", "fp16")}
    known = allowed.get(device.type, ("fp32", "tf32", "bf16", "fp16"))
    if precision not in known:
        raise DeviceError(f"--precision {precision} on {device.type}: use {' or '.join(known)}")
    if precision in ("tf32", "bf16") and device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        if capability < (8, 0):
            raise DeviceError(
                f"--precision {precision} needs compute capability 8.0 (Ampere or later), "
                f"this GPU has {'.'.join(map(str, capability))}; use fp32 or fp16"
            )


def place(network: nn.Module, device: torch.device) -> None:
    """Move a network to a device, in place, laid out as its convolutions run fastest.

    With the channels last in memory oneDNN and cuDNN need no reordering around a
    convolution; on two cores it makes a training step 1.15 times faster.
    """
    layout: dict[str, Any] = {"memory_format": torch.channels_last}  # unknown to 2.13's stubs
    network.to(device, **layout)


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Compute convolutions and products in half precision, if that is the precision."""
    half = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    return torch.autocast(device.type, dtype=half) if half else nullcontext()


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all that it was given."""
    match device.type:
        case "cuda":
            torch.cuda.synchronize(device)
        case "mps":
            torch.mps.synchronize()
        case "xpu":
            torch.xpu.synchronize(device)


def seed_generator(device: torch.device, seed: int) -> None:
    """Seed the generator that dropout on a device draws from."""
    match device.type:
        case "cuda":
            torch.cuda.default_generators[device.index or 0].manual_seed(seed)
        case "xpu":
            torch.xpu.default_generators[device.index or 0].manual_seed(seed)
        case "mps":
            torch.mps.manual_seed(seed)
        case _:
            torch.default_generator.manual_seed(seed)


@contextmanager
def own_random_numbers(device: torch.device) -> Iterator[None]:
    """Give the caller's generators, the CPU's and the device's, back as they were."""
    kind = device.type if device.type in ("cuda", "xpu") else "cuda"
    devices = [device] if device.type in ("cuda", "xpu") else []
    with torch.random.fork_rng(devices, device_type=kind):
        yield


@contextmanager
def _explaining_memory() -> Iterator[None]:
    """Turn torch's several ways of running out of memory into one sentence."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        short = isinstance(error, torch.OutOfMemoryError | MemoryError)
        if not short and "can't allocate memory" not in str(error):
            raise
        # On a CPU it begins with a place in torch's source.
        reason = str(error).partition("\n")[0].rpartition("DefaultCPUAllocator: ")[2]
        what = f"out of memory: {reason}" if reason else "out of memory"
        raise OutOfMemoryError(f"{what}; use a smaller --batch-size or network") from error


@contextmanager
def computing(precision: str, threads: int) -> Iterator[None]:
    """Set threads, denormals and TF32 for the time of a run, and set them back after.

    Denormals are flushed to zero: a converged network's activations and Adam's averages
    are full of them, and a CPU handles each by a trap of a hundred cycles or more.

    Raises:
        OutOfMemoryError: What is computed meanwhile does not fit.
    """
    threads_before = torch.get_num_threads()
    matmul_before = torch.get_float32_matmul_precision()
    conv_before = torch.backends.cudnn.allow_tf32
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    try:
        with _explaining_memory():
            yield
    finally:
        torch.set_num_threads(threads_before)
        torch.set_flush_denormal(False)
        torch.set_float32_matmul_precision(matmul_before)
        torch.backends.cudnn.allow_tf32 = conv_before


def usable_cores() -> int:
    """Count the physical cores that this process may really use.

    Affinity and the cgroup's CPU quota count; of the threads of one core only one does,
    since a second hyper-thread adds nothing to a core that is busy multiplying.
    """
    if hasattr(os, "sched_getaffinity"):
        cpus = os.sched_getaffinity(0)
    else:
        cpus = set(range(os.cpu_count() or 1))
    cores = {_siblings(cpu) for cpu in cpus}
    quota = _cgroup_quota()
    return max(1, min(len(cores), math.ceil(quota)) if quota else len(cores))


def _siblings(cpu: int) -> str:
    path = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
    try:
        return path.read_text().strip()
    except OSError:
        return str(cpu)


def _cgroup_quota(root: Path = Path("/sys/fs/cgroup")) -> float | None:
    """Return how many CPUs' worth of time the cgroup grants, v2 or v1; None: no limit."""
    try:
        if (root / "cpu.max").exists():
            quota, period = (root / "cpu.max").read_text().split()
        else:
            quota = (root / "cpu/cpu.cfs_quota_us").read_text()
            period = (root / "cpu/cpu.cfs_period_us").read_text()
        return int(quota) / int(period) if int(quota) > 0 else None
    except (OSError, ValueError, ZeroDivisionError):
        return None
