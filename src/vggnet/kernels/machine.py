"""What this machine offers to compiled kernels: vector instructions, an OpenMP runtime."""

from __future__ import annotations

import platform
import sys
from functools import cache
from pathlib import Path

from vggnet.errors import KernelError

_RUNTIMES = ("libgomp", "libiomp", "libomp")


@cache
def describe_cpu() -> str:
    """Return the CPU's model and features, which decide what `-march=native` means.

    Raises:
        KernelError: The machine is not x86-64 under Linux.
    """
    if sys.platform != "linux" or platform.machine() not in ("x86_64", "AMD64"):
        raise KernelError(
            "the compiled kernels are for Linux on x86-64, and this is "
            f"{platform.system()} on {platform.machine()}; use --kernels torch"
        )
    first = Path("/proc/cpuinfo").read_text().split("\n\n", 1)[0]
    wanted = ("vendor_id", "cpu family", "model", "stepping", "flags")
    lines = [line for line in first.splitlines() if line.split("\t")[0] in wanted]
    return "\n".join(lines)


def widest_vector() -> int:
    """Return how many floats the machine's vectors hold: 16 with AVX-512, 8 with AVX2.

    Raises:
        KernelError: The machine has neither.
    """
    features = set(describe_cpu().split())
    if {"avx512f", "avx512bw", "avx512dq", "avx512vl"} <= features:
        return 16
    if {"avx2", "fma"} <= features:
        return 8
    raise KernelError("the CPU has no AVX2 with FMA; use --kernels torch")


def openmp_runtimes() -> list[Path]:
    """Return the OpenMP runtimes that this process has loaded, torch's first.

    Two runtimes would keep two teams of threads, each spinning while the other works.
    """
    paths: dict[Path, None] = {}
    for line in Path("/proc/self/maps").read_text().splitlines():
        path = Path(line.split(maxsplit=5)[-1])
        if path.name.startswith(_RUNTIMES):
            paths[path] = None
    return sorted(paths, key=lambda path: "torch" not in path.parts)
