"""Choose, compile, load and test the kernels that serve a layer on this machine."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F

from vggnet.errors import KernelError
from vggnet.kernels import reference
from vggnet.kernels.build import build_library
from vggnet.kernels.library import MOST_DIRECT_INPUTS, NONE, RELU, RELU_POOL, Library
from vggnet.kernels.machine import describe_cpu, openmp_runtimes, widest_vector

# Far above what single precision loses on so few terms (1e-6), far below a wrong result (1).
_TOLERANCE = 1e-4


def load_library(lanes: int) -> Library:
    """Compile where needed, load, and test the kernels for vectors of `lanes` floats.

    That is done once in a process, whatever comes of it.

    Raises:
        KernelError: They cannot be compiled, or compute something else than torch.
    """
    found = _load_once(lanes)
    if isinstance(found, str):
        raise KernelError(found)
    return found


@cache
def _load_once(lanes: int) -> Library | str:
    """Return the kernels, or why there are none."""
    try:
        return _load(lanes)
    except KernelError as error:
        return str(error)


@cache
def _first_runtimes() -> list[Path]:
    """Return the OpenMP runtimes from before any kernels: what they load stays loaded."""
    return openmp_runtimes()


def _load(lanes: int) -> Library:
    cpu = describe_cpu()
    before = _first_runtimes()
    build = build_library(lanes, cpu, before[0] if before else None)
    try:
        library = Library(build, lanes)
    except OSError as error:
        raise KernelError(f"the compiled kernels cannot be loaded: {error}") from error
    if added := [str(path) for path in openmp_runtimes() if path not in before]:
        raise KernelError(
            f"{build.compiler.command[0]} brings an OpenMP runtime of its own "
            f"({', '.join(added)}), which would compete with torch's; set CXX=g++"
        )
    check_library(library)
    return library


def lanes_for(in_channels: int, out_channels: int) -> int | None:
    """Return the widest vector that divides a layer's channels, None if none does.

    Raises:
        KernelError: The machine has no vectors that serve.
    """
    widest = widest_vector()
    direct = in_channels <= MOST_DIRECT_INPUTS
    for lanes in (16, 8):
        fits = out_channels % lanes == 0 and (direct or in_channels % lanes == 0)
        if lanes <= widest and fits:
            return lanes
    return None


def library_for(weight: torch.Tensor) -> Library:
    """Return the kernels for a layer with this weight (K, C, 3, 3).

    Raises:
        KernelError: There are none.
    """
    lanes = lanes_for(weight.shape[1], weight.shape[0])
    if lanes is None:
        raise KernelError(
            f"no compiled kernel takes a weight of shape {tuple(weight.shape)}; its channels "
            "must be multiples of 8"
        )
    return load_library(lanes)


def check_library(library: Library) -> None:
    """Compare the kernels with torch on small layers: 1 and some inputs, odd sizes.

    Batch norm's own backward pass is left to the tests.

    Raises:
        KernelError: A result differs.
    """
    lanes = library.lanes
    layers = (
        (1, lanes, NONE),
        (3, 2 * lanes, RELU),
        (lanes, 3 * lanes, NONE),
        (2 * lanes, lanes, RELU),
        (3 * lanes, 2 * lanes, RELU_POOL),
    )
    normalized = all(_normalizes(library, activation) for activation in (NONE, RELU, RELU_POOL))
    if not (normalized and all(_agrees(library, *layer) for layer in layers)):
        raise KernelError(
            f"the compiled kernels for {library.lanes} lanes compute something else than "
            f"torch; delete {library.build.path} and try again, or use --kernels torch"
        )


def _agrees(library: Library, in_channels: int, out_channels: int, activation: int) -> bool:
    generator = _generator()
    images = _draw(generator, 2, in_channels, 7, 10)
    weight = _draw(generator, out_channels, in_channels, 3, 3).contiguous()
    bias = _draw(generator, 1, out_channels, 1, 1).flatten()
    wanted = (in_channels > MOST_DIRECT_INPUTS, True)
    theirs = reference.forward(images, weight, bias, activation)
    ours = library.forward(images, weight, bias, activation)
    if ours is None or not _close(ours.outputs, theirs.outputs):
        return False
    gradients = _draw(generator, *ours.outputs.shape)
    # From one and the same forward pass: at a near tie two passes may choose differently.
    expected = reference.backward(gradients, images, weight, ours, activation, wanted)
    found = library.backward(gradients, images, weight, ours, activation, wanted)
    return found is not None and all(
        theirs is None or (ours is not None and _close(ours, theirs))
        for ours, theirs in zip(found, expected, strict=True)
    )


def _normalizes(library: Library, activation: int) -> bool:
    values = _draw(_generator(), 2, 2 * library.lanes, 6, 5) + 1
    mean, variance = library.moments(values)
    scale = torch.rsqrt(variance + 1e-5)
    ours = library.normalize(values, scale, -mean * scale, activation)
    normed = F.batch_norm(values, None, None, training=True, eps=1e-5)
    theirs = reference.activate(normed, activation)
    return ours is not None and _close(ours.outputs, theirs.outputs)


def _generator() -> torch.Generator:
    return torch.Generator("cpu").manual_seed(0)


def _draw(generator: torch.Generator, *shape: int) -> torch.Tensor:
    """Draw numbers of the kernels' own kind, channels last, whatever torch's defaults are."""
    drawn = torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu")
    return drawn.contiguous(memory_format=torch.channels_last)


def _close(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    return bool((ours - theirs).norm() <= _TOLERANCE * theirs.norm())
