"""Choose, compile, load and test the kernels that serve a layer on this machine."""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F

from vggnet.errors import KernelError
from vggnet.kernels import reference
from vggnet.kernels.build import build_library
from vggnet.kernels.library import MOST_DIRECT_INPUTS, NONE, RELU, RELU_POOL, Library
from vggnet.kernels.machine import describe_cpu, openmp_runtimes, widest_vector

# Far above what single precision loses on so few terms (1e-6), far below a wrong result (1).
_TOLERANCE = 1e-4


@cache
def load_library(lanes: int) -> Library:
    """Compile where needed, load, and test the kernels for vectors of `lanes` floats.

    Raises:
        KernelError: They cannot be compiled, or compute something else than torch.
    """
    cpu = describe_cpu()
    before = openmp_runtimes()
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
    """Compare each kernel with torch on small layers: 1 and some inputs, odd sizes.

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
    if not (_normalizes(library) and all(_agrees(library, *layer) for layer in layers)):
        raise KernelError(
            f"the compiled kernels for {library.lanes} lanes compute something else than "
            f"torch; delete {library.build.path} and try again, or use --kernels torch"
        )


def _agrees(library: Library, in_channels: int, out_channels: int, activation: int) -> bool:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, in_channels, 7, 10, generator=generator)
    images = images.contiguous(memory_format=torch.channels_last)
    weight = torch.randn(out_channels, in_channels, 3, 3, generator=generator)
    bias = torch.randn(out_channels, generator=generator)
    wanted = (in_channels > MOST_DIRECT_INPUTS, True)
    theirs = reference.forward(images, weight, bias, activation)
    ours = library.forward(images, weight, bias, activation)
    if ours is None or not _close(ours.outputs, theirs.outputs):
        return False
    gradients = torch.randn(ours.outputs.shape, generator=generator)
    gradients = gradients.contiguous(memory_format=torch.channels_last)
    # From one and the same forward pass: at a near tie two passes may choose differently.
    expected = reference.backward(gradients, images, weight, ours, activation, wanted)
    found = library.backward(gradients, images, weight, ours, activation, wanted)
    return found is not None and all(
        theirs is None or (ours is not None and _close(ours, theirs))
        for ours, theirs in zip(found, expected, strict=True)
    )


def _normalizes(library: Library) -> bool:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(2, 2 * library.lanes, 6, 5, generator=generator) + 1
    values = values.contiguous(memory_format=torch.channels_last)
    mean, variance = library.moments(values)
    scale = torch.rsqrt(variance + 1e-5)
    ours = library.normalize(values, scale, -mean * scale, NONE)
    theirs = F.batch_norm(values, None, None, training=True, eps=1e-5)
    return ours is not None and _close(ours.outputs, theirs)


def _close(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    return bool((ours - theirs).norm() <= _TOLERANCE * theirs.norm())
