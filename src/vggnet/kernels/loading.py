"""Choose, compile, load and test the kernels for a layer."""

from __future__ import annotations

import platform
import re
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F

from vggnet.errors import KernelError
from vggnet.kernels import reference
from vggnet.kernels.build import build_library
from vggnet.kernels.library import MAX_DIRECT_INPUTS, NONE, RELU, RELU_POOL, Activated, Library

# Much larger than float32's error in such short sums (1e-6), much smaller than a wrong result (1).
_TOLERANCE = 1e-4

_OPENMP_NAMES = ("libgomp", "libiomp", "libomp")


@dataclass(frozen=True)
class Processor:
    """The processor, as far as it determines the compiled code."""

    description: str
    """Model and features, which decide what `flag` means."""
    flag: str
    """Compiler flag that allows all of its instructions."""
    widths: tuple[int, ...]
    """Numbers of floats in its vectors, the widest first."""
    instructions: str
    """Name of the instruction set with the widest vectors."""


@cache
def find_processor() -> Processor:
    """Return the processor's description.

    Raises:
        KernelError: The kernels do not support this processor or system.
    """
    machine = platform.machine()
    if sys.platform == "darwin" and machine == "arm64":  # not run yet
        return Processor("Apple silicon", "-mcpu=apple-m1", (4,), "NEON")
    if sys.platform != "linux" or machine not in ("x86_64", "AMD64", "aarch64"):
        raise KernelError(
            "the compiled kernels need Linux on x86-64 or aarch64, or macOS on arm64, and this is "
            f"{platform.system()} on {machine}; use --kernels torch"
        )
    try:
        first = Path("/proc/cpuinfo").read_text(errors="replace").split("\n\n", 1)[0]
    except OSError as error:
        raise KernelError(f"cannot read /proc/cpuinfo: {error.strerror}") from error
    values = dict(re.findall(r"^(\S.*?)\s*: (.*)$", first, re.MULTILINE))
    widths: tuple[int, ...]
    if machine == "aarch64":
        keys = ("CPU implementer", "CPU architecture", "CPU variant", "CPU part", "Features")
        flag, widths, instructions = "-mcpu=native", (4,), "NEON"
    else:
        keys = ("vendor_id", "cpu family", "model", "stepping", "flags")
        flag, widths, instructions = "-march=native", (8,), "AVX2"
        features = set(values.get("flags", "").split())
        if {"avx512f", "avx512bw", "avx512dq", "avx512vl"} <= features:
            widths, instructions = (16, 8), "AVX-512"
        elif not {"avx2", "fma"} <= features:
            raise KernelError("the CPU has no AVX2 with FMA; use --kernels torch")
    description = "\n".join(f"{key}: {values.get(key)}" for key in keys)
    return Processor(description, flag, widths, instructions)


def lanes_for(in_channels: int, out_channels: int) -> int | None:
    """Return the widest vector that divides a layer's channels, None if none does.

    Raises:
        KernelError: The kernels do not support this processor.
    """
    direct = in_channels <= MAX_DIRECT_INPUTS
    for lanes in find_processor().widths:
        if out_channels % lanes == 0 and (direct or in_channels % lanes == 0):
            return lanes
    return None


def library_for(weight: torch.Tensor) -> Library:
    """Return the kernels for a layer with this weight (K, C, 3, 3).

    Raises:
        KernelError: The kernels are unavailable, or none divides the channels.
    """
    lanes = lanes_for(weight.shape[1], weight.shape[0])
    if lanes is None:
        raise KernelError(
            f"no compiled kernel supports a weight of shape {tuple(weight.shape)}: its channels "
            f"are not multiples of {find_processor().widths[-1]}"
        )
    return load_library(lanes)


def load_library(lanes: int) -> Library:
    """Load the kernels for vectors of `lanes` floats; compile them if necessary, and test them.

    A process tries this once and keeps the result, so training and validation agree.

    Raises:
        KernelError: They cannot be compiled or loaded, or their results differ from torch's.
    """
    found = _load_once(lanes)
    if isinstance(found, str):
        raise KernelError(found)
    return found


@cache
def _load_once(lanes: int) -> Library | str:
    """Return the kernels, or why they are unavailable."""
    try:
        return _load(lanes)
    except KernelError as error:
        reason = str(error)
    except Exception as error:  # whatever goes wrong here, torch can still train
        reason = f"{type(error).__name__}: {error}"
    return "".join(character if character.isprintable() else "?" for character in reason)


def _load(lanes: int) -> Library:
    before, processor = _first_openmp_runtimes(), find_processor()
    openmp = before[0] if before else None
    build = build_library(lanes, processor.flag, processor.description, openmp)
    try:
        library = Library(build, lanes)
        if added := [str(path) for path in openmp_runtimes() if path not in before]:
            raise KernelError(
                f"{build.compiler.command[0]} adds its own OpenMP runtime ({', '.join(added)}), "
                "which would compete with torch's; set CXX=g++"
            )
        check_library(library)
    except (AttributeError, OSError) as error:  # what was compiled is no library, or another one
        build.path.unlink(missing_ok=True)
        raise KernelError(f"the compiled kernels cannot be loaded: {error}") from error
    return library


def openmp_runtimes() -> list[Path]:
    """Return the OpenMP runtimes that this process has loaded, torch's first.

    With two runtimes, two teams of threads would spin while the other one works. On macOS the
    kernels use none.
    """
    if sys.platform == "darwin":
        return []
    # surrogateescape: paths are bytes.
    maps = Path("/proc/self/maps").read_text(encoding="utf-8", errors="surrogateescape")
    paths = dict.fromkeys(Path(line.split(maxsplit=5)[-1]) for line in maps.splitlines())
    runtimes = [path for path in paths if path.name.startswith(_OPENMP_NAMES)]
    return sorted(runtimes, key=lambda path: "torch" not in str(path))


@cache
def _first_openmp_runtimes() -> list[Path]:
    """Return the runtimes loaded before any kernels, since those of the kernels stay loaded."""
    return openmp_runtimes()


def check_library(library: Library) -> None:
    """Compare the kernels with torch on small layers of all kinds and odd sizes.

    Only the tests check the backward pass of batch norm.

    Raises:
        KernelError: A result differs.
    """
    lanes = library.lanes
    layers = (
        (1, lanes, NONE),
        (3, 2 * lanes, RELU),
        (2 * lanes, 3 * lanes, NONE),
        (2 * lanes, lanes, RELU),
        (3 * lanes, 2 * lanes, RELU_POOL),
    )
    normalized = all(_normalizes(library, activation) for activation in (NONE, RELU, RELU_POOL))
    if not (normalized and all(_agrees(library, *layer) for layer in layers)):
        raise KernelError(
            f"the compiled kernels for {lanes} lanes compute something else than torch; "
            "use another compiler (CXX) or --kernels torch"
        )


def _agrees(library: Library, in_channels: int, out_channels: int, activation: int) -> bool:
    generator = torch.Generator("cpu").manual_seed(0)
    images = _draw(generator, 2, in_channels, 7, 10)
    weight = _draw(generator, out_channels, in_channels, 3, 3).contiguous()
    bias = _draw(generator, 1, out_channels, 1, 1).flatten()
    wanted = (in_channels > MAX_DIRECT_INPUTS, True)
    found = library.forward(images, weight, bias, activation)
    if not _close(found, reference.forward(images, weight, bias, activation)):
        return False
    assert found is not None
    gradients = _draw(generator, *found.outputs.shape)
    # Both from the same forward pass: at a near tie, two passes may choose differently.
    given = (gradients, found, images, weight, wanted)
    ours, theirs = library.backward(*given), reference.backward(*given)
    return ours is not None and all(
        expected is None or (gradient is not None and _near(gradient, expected))
        for gradient, expected in zip(ours, theirs, strict=True)
    )


def _normalizes(library: Library, activation: int) -> bool:
    values = _draw(torch.Generator("cpu").manual_seed(0), 2, 2 * library.lanes, 6, 5) + 1
    mean, variance = library.moments(values)
    scale = torch.rsqrt(variance + 1e-5)
    normed = F.batch_norm(values, None, None, training=True, eps=1e-5)
    found = library.normalize(values, scale, -mean * scale, activation)
    return _close(found, reference.activate(normed, activation))


def _draw(generator: torch.Generator, *shape: int) -> torch.Tensor:
    """Draw normal numbers in the kernels' type and layout, whatever torch's defaults are."""
    drawn = torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu")
    return reference.channels_last(drawn)


def _close(found: Activated | None, expected: Activated) -> bool:
    return found is not None and _near(found.outputs, expected.outputs)


def _near(found: torch.Tensor, expected: torch.Tensor) -> bool:
    return bool((found - expected).norm() <= _TOLERANCE * expected.norm())
