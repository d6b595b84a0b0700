"""Decide whether the compiled kernels compute a network, and say why."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from vggnet.errors import ConfigError, KernelError
from vggnet.kernels.loading import library_for, load_library
from vggnet.kernels.machine import widest_vector
from vggnet.kernels.network import AcceleratedNetwork, FusedConvolution

MODES = ("auto", "winograd", "torch")


@dataclass(frozen=True, kw_only=True)
class KernelStatus:
    """Which convolutions this machine uses for training and inference on its CPU."""

    in_use: str
    """"winograd" or "torch"."""
    reason: str
    """Why, in a sentence for people."""
    compiler: str | None = None
    """What the C++ compiler calls itself."""
    cache_path: Path | None = None
    """The compiled library."""
    seconds_to_compile: float = 0.0
    """Seconds that compiling took in this process; 0.0 if it was done before."""


def accelerate(network: nn.Module, *, mode: str = "auto") -> nn.Module:
    """Return a module that computes what a VGG network does, by the compiled kernels.

    It shares the network's parameters and buffers under the same names. The first call
    on a machine compiles the kernels, which takes seconds.

    Args:
        network: A VGG: `features` and `classifier`, both nn.Sequential.
        mode: "torch" returns the network itself; so does "auto" where the kernels cannot
            be used; "winograd" insists.

    Raises:
        ConfigError: There is no such mode.
        KernelError: The mode is "winograd" and the kernels cannot be used.
    """
    _check(mode)
    if mode == "torch":
        return network
    try:
        accelerated = AcceleratedNetwork(network)
        convolutions = [
            step.convolution for step in accelerated.steps if isinstance(step, FusedConvolution)
        ]
        if not convolutions:
            raise KernelError(
                "no layer of this network fits the compiled kernels, which are for 3×3 "
                "convolutions in float32 on the CPU whose channels are multiples of 8; "
                "use --kernels torch"
            )
        for convolution in convolutions:
            library_for(convolution.weight)
    except KernelError:
        if mode == "winograd":
            raise
        return network
    return accelerated


def status(mode: str = "auto") -> KernelStatus:
    """Say which convolutions a mode gives on this machine, compiling the kernels if need be.

    Raises:
        ConfigError: There is no such mode.
    """
    _check(mode)
    if mode == "torch":
        return KernelStatus(in_use="torch", reason="--kernels torch asks for torch's own")
    try:
        lanes = widest_vector()
        build = load_library(lanes).build
    except KernelError as error:
        return KernelStatus(in_use="torch", reason=str(error))
    instructions = "AVX-512" if lanes == 16 else "AVX2"
    return KernelStatus(
        in_use="winograd",
        reason=f"compiled for this CPU's {instructions} and equal to torch in the self-test",
        compiler=build.compiler.version,
        cache_path=build.path,
        seconds_to_compile=build.seconds,
    )


def _check(mode: str) -> None:
    if mode not in MODES:
        raise ConfigError(f"no kernels are called {mode!r}; choose one of {', '.join(MODES)}")
