"""Use the compiled kernels for a network if they are available, and say why if not."""

from __future__ import annotations

import ctypes
import logging
import os
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from torch import nn

from vggnet.errors import ConfigError, KernelError
from vggnet.kernels.loading import find_processor, load_library
from vggnet.kernels.network import AcceleratedNetwork
from vggnet.model.vgg import VGG

MODES = ("auto", "winograd", "torch")

# Parameter numbers from glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
# In bytes: the largest power of two that fits mallopt's int, and the limit of older glibc versions.
_THRESHOLDS = (1 << 30, 1 << 25)


@dataclass(frozen=True, kw_only=True)
class KernelStatus:
    """Which 3×3 convolutions this machine uses for training and inference on the CPU."""

    in_use: str
    """"winograd" or "torch"."""
    reason: str
    """One sentence that explains why."""
    compiler: str | None = None
    """First line of the C++ compiler's `--version`."""
    cache_path: Path | None = None
    """The compiled library."""
    seconds_to_compile: float = 0.0
    """Time spent compiling in this process; 0.0 if the library was in the cache."""


def accelerate(network: VGG, kernels: str = "auto") -> nn.Module:
    """Return a module that computes the same as a VGG network, with the compiled kernels.

    The module shares the network's parameters and buffers under the same names. The first call
    on a machine compiles the kernels, which takes seconds. On a CPU this also calls
    `keep_memory`, whichever kernels run.

    Args:
        network: The network.
        kernels: "torch" returns the network itself. "auto" does so if the kernels are
            unavailable, and logs the reason once per process. "winograd" raises an error.

    Raises:
        ConfigError: `kernels` is none of the three.
        KernelError: `kernels` is "winograd" and the kernels are unavailable.
    """
    _check_mode(kernels)
    on_cpu = next(network.parameters()).device.type == "cpu"
    if on_cpu:
        keep_memory()
    # There are no kernels for other devices and systems, so nobody misses them there.
    expected = on_cpu and sys.platform == "linux"
    if kernels == "torch" or (kernels == "auto" and not expected):
        return network
    try:
        return AcceleratedNetwork(network)
    except KernelError as error:
        if kernels == "winograd":
            raise
        _log_unavailable(str(error))
        return network


def kernels_of(network: nn.Module) -> str:
    """Return "winograd" if the compiled kernels compute any part of a module, else "torch"."""
    accelerated = any(isinstance(module, AcceleratedNetwork) for module in network.modules())
    return "winograd" if accelerated else "torch"


def status(kernels: str = "auto") -> KernelStatus:
    """Report which convolutions this machine uses; compile the kernels if necessary.

    Raises:
        ConfigError: `kernels` is not in `MODES`.
    """
    _check_mode(kernels)
    if kernels == "torch":
        return KernelStatus(in_use="torch", reason="--kernels torch selects PyTorch's own")
    try:
        processor = find_processor()
        build = load_library(processor.widths[0]).build
    except KernelError as error:
        return KernelStatus(in_use="torch", reason=str(error))
    return KernelStatus(
        in_use="winograd",
        reason=f"compiled for {processor.instructions}; the self-test agrees with torch",
        compiler=build.compiler.version,
        cache_path=build.path,
        seconds_to_compile=build.seconds,
    )


def keep_memory() -> bool:
    """Make libc keep freed memory instead of returning it to the operating system.

    By default glibc maps each large tensor separately and unmaps it when it is freed, and the
    kernel zeroes each page at its first use: 2,000 to 6,000 page faults per training step of
    vgg-mini, 5 to 18 % of its time, with torch's convolutions as well as with ours. After this
    call, freed blocks of up to 1 GiB (32 MiB with an older glibc) stay in the heap, so the
    process's memory never shrinks. The setting affects the whole process and is permanent.

    Returns:
        Whether libc accepted it: False without glibc (musl, macOS, Windows).
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    # Setting the trim threshold ends glibc's own adjustment of both thresholds, so do it only
    # if the other one was accepted.
    accepted = any(mallopt(_M_MMAP_THRESHOLD, threshold) for threshold in _THRESHOLDS)
    return accepted and bool(mallopt(_M_TRIM_THRESHOLD, _THRESHOLDS[0]))


def _check_mode(kernels: str) -> None:
    if kernels not in MODES:
        raise ConfigError(f"unknown kernels {kernels!r}; choose one of {', '.join(MODES)}")


@cache
def _log_unavailable(reason: str) -> None:
    # Of several processes on a machine, which torchrun numbers, one is enough.
    if os.environ.get("LOCAL_RANK", "0") == "0":
        logging.getLogger(__name__).warning(
            "compiled kernels unavailable: %s; training takes about 2.3 times as long", reason
        )
