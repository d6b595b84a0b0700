"""Choose a device, describe it, wait for it, and set how it computes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vggnet.engine.processor import cpu_name, usable_cores
from vggnet.errors import DeviceError, OutOfMemoryError

PREFERENCE = ("cuda", "mps", "xpu", "cpu")
"""The order in which `auto` tries devices."""


_OUT_OF_MEMORY = (
    "out of memory",  # CUDA, MPS, XPU
    "can't allocate memory",  # CPU on Linux and macOS
    "not enough memory",  # CPU on Windows
    "STATUS_ALLOC_FAILED",  # cuBLAS and cuDNN
)
"""How torch says that memory is full, if it does not raise OutOfMemoryError."""


def why_unavailable(kind: str, index: int = 0) -> str | None:
    """Return why this machine cannot use a kind of device, or None if it can."""
    match kind:
        case "cpu":
            return None
        case "cuda" if torch.cuda.is_available():
            return _why_unsupported(index)
        case "cuda" if torch.version.cuda is None and torch.version.hip is None:
            return f"torch {torch.__version__} was built without CUDA"
        case "cuda":
            return "torch has CUDA, but finds no NVIDIA driver or GPU (try nvidia-smi)"
        case "mps" if torch.backends.mps.is_available():
            return None
        case "mps" if not torch.backends.mps.is_built():
            return f"torch {torch.__version__} was built without MPS"
        case "mps":
            return "MPS needs macOS 12.3 or later and an Apple GPU"
        case "xpu" if torch.xpu.is_available():
            return None
        case "xpu":
            return f"torch {torch.__version__} finds no Intel GPU"
    return f"unknown kind of device {kind!r}"


def _why_unsupported(index: int) -> str | None:
    """Return why this build of torch cannot run on an NVIDIA GPU, or None if it can.

    `is_available` does not check this, and the first operation would fail. Code for sm_XY runs
    on GPUs with the same major and at least the same minor number; the driver compiles
    compute_XY for all newer GPUs.
    """
    built = torch.cuda.get_arch_list()
    if torch.version.hip or not built:
        return None
    mine = torch.cuda.get_device_capability(index)
    for name in built:
        kind, _, digits = name.partition("_")
        number = int("".join(character for character in digits if character.isdigit()))
        theirs = divmod(number, 10)
        if theirs <= mine and (kind == "compute" or theirs[0] == mine[0]):
            return None
    return (
        f"this build of torch has no code for {torch.cuda.get_device_name(index)} (compute "
        f"capability {mine[0]}.{mine[1]}), only for {', '.join(built)}; install another build"
    )


def choose_device(name: str, local_rank: int = 0) -> torch.device:
    """Return an available device; never fall back silently.

    Args:
        name: "auto", "cpu", "cuda", "cuda:N", "mps", "xpu" or "xpu:N".
        local_rank: Index of the cuda or xpu device if `name` has none.

    Raises:
        DeviceError: It is not available; the message explains why.
    """
    if name == "auto":
        name = next(kind for kind in PREFERENCE if why_unavailable(kind) is None)
    kind, _, index = name.partition(":")
    number = int(index) if index else local_rank
    counts = {"cuda": torch.cuda.device_count, "xpu": torch.xpu.device_count}
    count = counts[kind]() if kind in counts else 0
    if 0 < count <= number:
        raise DeviceError(f"--device {kind}:{number}: there are {count}, numbered from 0")
    if reason := why_unavailable(kind, number):
        raise DeviceError(f"--device {name}: {reason}; use --device auto or --device cpu")
    return torch.device(kind, number) if kind in counts else torch.device(kind)


def name_device(device: torch.device) -> str:
    """Return the name of a device for people."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    if device.type == "cpu":
        return f"cpu ({cpu_name()})"
    return str(device)


def describe_gpu(device: torch.device) -> dict[str, str | int | None]:
    """Return model, driver and cuDNN version of an NVIDIA GPU; empty for other devices."""
    if device.type != "cuda":
        return {}
    try:
        text = Path("/proc/driver/nvidia/version").read_text()
    except OSError:
        text = ""
    driver = re.search(r"Kernel Module.*?([0-9]+(?:\.[0-9]+)+)", text)
    return {
        "gpu": torch.cuda.get_device_name(device),
        "driver": driver[1] if driver else None,
        "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
    }


def check_precision(precision: str, device: torch.device) -> None:
    """Check that the device supports a number format.

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
                f"--precision {precision} needs compute capability 8.0 (Ampere or later), but "
                f"this GPU has {'.'.join(map(str, capability))}; use fp32 or fp16"
            )


def place(network: nn.Module, device: torch.device) -> None:
    """Move a network to a device, in place, in the memory layout of the fastest convolutions.

    With channels last, oneDNN and cuDNN do not reorder around a convolution; on two CPU cores
    a training step is 1.15 times faster. On MPS, the backward pass of a convolution is 30 times
    slower (pytorch#193349).
    """
    layout: dict[str, Any] = {"memory_format": torch.channels_last}  # unknown to 2.13's stubs
    network.to(device, **(layout if device.type != "mps" else {}))


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Compute convolutions and matrix products in half precision, with bf16 and fp16."""
    half = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    return torch.autocast(device.type, dtype=half) if half else nullcontext()


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished all its work."""
    match device.type:
        case "cpu":
            pass
        case "mps":
            torch.mps.synchronize()
        case _:
            torch.get_device_module(device).synchronize(device)


def seed_generator(device: torch.device, seed: int) -> None:
    """Seed the generator of a device, which dropout uses."""
    match device.type:
        case "cpu":
            torch.default_generator.manual_seed(seed)
        case "mps":
            torch.mps.manual_seed(seed)
        case _:
            generators = torch.get_device_module(device).default_generators
            generators[device.index or 0].manual_seed(seed)


@contextmanager
def own_random_numbers(device: torch.device) -> Iterator[None]:
    """Restore the generators of the CPU and the device at the end."""
    forked = device.type not in ("cpu", "mps")
    kind, devices = (device.type, [device]) if forked else ("cuda", [])
    mps = torch.mps.get_rng_state() if device.type == "mps" else None  # fork_rng lacks MPS
    try:
        with torch.random.fork_rng(devices, device_type=kind):
            yield
    finally:
        if mps is not None:
            torch.mps.set_rng_state(mps)


@contextmanager
def _explain_memory() -> Iterator[None]:
    """Turn torch's errors about full memory into one error."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        known = isinstance(error, torch.OutOfMemoryError | MemoryError)
        if not known and not any(words in str(error) for words in _OUT_OF_MEMORY):
            raise
        # On a CPU the message starts with a line of torch's source.
        reason = str(error).partition("\n")[0].rpartition("DefaultCPUAllocator: ")[2]
        what = f"out of memory: {reason}" if reason else "out of memory"
        raise OutOfMemoryError(f"{what}; use a smaller --batch-size or network") from error


@contextmanager
def computing(precision: str, threads: int | None) -> Iterator[None]:
    """Set threads, denormals, TF32 and deterministic cuDNN, and restore them at the end.

    Denormals are flushed to zero: the activations of a converged network and Adam's averages
    contain many, and each costs a CPU a hundred cycles or more.

    Args:
        precision: As in `TrainConfig`.
        threads: CPU threads; None: the usable cores.

    Raises:
        OutOfMemoryError: The memory of the device is full.
    """
    cudnn: Any = torch.backends.cudnn
    threads_before, deterministic_before = torch.get_num_threads(), cudnn.deterministic
    torch.set_num_threads(threads or usable_cores())
    torch.set_flush_denormal(True)
    cudnn.deterministic = True
    try:
        with allow_tf32(precision == "tf32"), _explain_memory():
            yield
    finally:
        torch.set_num_threads(threads_before)
        torch.set_flush_denormal(False)
        cudnn.deterministic = deterministic_before


@contextmanager
def allow_tf32(allowed: bool) -> Iterator[None]:
    """Allow or forbid TF32 in convolutions and matrix products, and restore the setting.

    torch has two interfaces. A value set through the newer one makes the getters of the older
    one fail (torch 2.9 to 2.14), and `torch.export` calls those. So this uses the newer one only
    where the caller did.
    """
    cudnn: Any = torch.backends.cudnn
    value: Any
    older, newer = (cudnn, torch.backends.cuda.matmul), (cudnn.conv, torch.backends.cuda.matmul)
    try:
        before: list[Any] = [one.allow_tf32 for one in older]
        owners, name, value = older, "allow_tf32", allowed
    except RuntimeError:
        before = [one.fp32_precision for one in newer]
        owners, name, value = newer, "fp32_precision", "tf32" if allowed else "ieee"
    try:
        for one in owners:
            setattr(one, name, value)
        yield
    finally:
        for one, earlier in zip(owners, before, strict=True):
            setattr(one, name, earlier)
