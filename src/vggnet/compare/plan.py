"""Which settings are measured: strict ones, candidates for the best, points of a sweep."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from vggnet.compare.measure import Training
from vggnet.compare.result import Setting
from vggnet.config import Config, ModelConfig
from vggnet.data.dataset import Dataset
from vggnet.engine.device import check_precision, choose_device, usable_cores, why_unavailable
from vggnet.errors import ConfigError, DeviceError, KernelError
from vggnet.kernels import accelerate
from vggnet.model.vgg import build_network

SweepKind = Literal["batch", "width"]

BATCHES = (8, 32, 128, 512, 2048)
"""Batch sizes of a sweep, beside the recipe's own."""
WIDTHS = (0.25, 0.5, 1.0, 2.0)
"""Widths of a sweep, as multiples of the network's own; arithmetic grows with the square."""
_CANDIDATE_BATCHES = {"cpu": (1, 4)}
_CANDIDATE_BATCHES_ELSEWHERE = (1, 4, 16)
"""Multiples of the common batch size that a device may do better with; a GPU is wider."""


@dataclass(frozen=True)
class Plan:
    """What is to be compared."""

    config: Config
    """Complete: classes, channels and image size are the data's."""
    dataset: Dataset
    devices: tuple[torch.device, ...]
    threads: tuple[int, ...]
    """Thread counts to try on the CPU, in rising order."""
    steps: int
    """Optimizer steps of a row at the common batch size."""
    repeats: int
    sweep: SweepKind | None
    options: str
    """Flags that ask for the same work elsewhere."""

    @property
    def images(self) -> int:
        """Images that a row trains on, but for what a short last batch lacks."""
        return self.steps * self.config.train.global_batch_size

    def training(self, setting: Setting, images: float, config: Config | None = None) -> Training:
        """Return a training on about so many images, by another configuration if one is given."""
        steps = max(1, round(images / setting.global_batch_size))
        return Training(setting, config or self.config, self.dataset, steps)


def choose_devices(names: Sequence[str] | None) -> tuple[torch.device, ...]:
    """Turn names into devices that are there; without names, all kinds that are there.

    Raises:
        ConfigError: One is named twice.
        DeviceError: One is not there, or is no device.
    """
    if names is None:
        kinds = [kind for kind in ("cpu", "cuda", "mps", "xpu") if why_unavailable(kind) is None]
        return tuple(choose_device(kind) for kind in kinds)
    devices: list[torch.device] = []
    for name in names:
        reason = why_unavailable(name.partition(":")[0])
        if reason:
            raise DeviceError(
                f"--devices {name}: {reason}; leave it out, or measure it where it is and "
                "give both compare.json files to vggnet compare"
            )
        if name.partition(":")[2] and not name.partition(":")[2].isdecimal():
            raise DeviceError(f"--devices {name}: no device; write cpu, cuda, cuda:1, mps or xpu")
        device = choose_device(name)
        if device in devices:
            raise ConfigError(f"--devices names {device} twice")
        devices.append(device)
    return tuple(devices)


def default_threads() -> tuple[int, ...]:
    """Return 1, 2, 4 and so on up to the usable cores, and those."""
    cores = usable_cores()
    return tuple(sorted({2**power for power in range(cores.bit_length())} | {cores}))


def strict_settings(plan: Plan) -> list[Setting]:
    """Return full fp32 by PyTorch's own operations on every device, the CPU at each count."""
    size = plan.config.train.global_batch_size
    return [
        Setting(
            device=str(device),
            precision="fp32",
            global_batch_size=size,
            threads=threads,
            kernels="torch",
        )
        for device in plan.devices
        for threads in (plan.threads if device.type == "cpu" else (None,))
    ]


def candidate_settings(plan: Plan, device: torch.device) -> Iterator[Setting]:
    """Give the settings in which a device may be at its best, strict ones included.

    On a CPU the two highest thread counts take part: fewer threads have not been seen to win.
    """
    own = plan.config.train.global_batch_size
    multiples = _CANDIDATE_BATCHES.get(device.type, _CANDIDATE_BATCHES_ELSEWHERE)
    sizes = [own * by for by in multiples if by == 1 or own * by <= len(plan.dataset.train)]
    on_cpu = device.type == "cpu"
    compiled = on_cpu and _kernels_fit(plan.config.model)
    for precision in ("fp32", "tf32", "bf16", "fp16"):
        try:
            check_precision(precision, device)
        except DeviceError:
            continue
        for kernels in ("torch", "winograd") if compiled and precision == "fp32" else ("torch",):
            for size in sizes:
                for threads in plan.threads[-2:] if on_cpu else (None,):
                    yield Setting.model_validate(
                        {
                            "device": str(device),
                            "precision": precision,
                            "global_batch_size": size,
                            "threads": threads,
                            "kernels": kernels,
                        }
                    )


def _kernels_fit(config: ModelConfig) -> bool:
    """Whether the compiled kernels serve this network here; compiles them at first use."""
    try:
        accelerate(build_network(config, 0), "winograd")
    except KernelError:
        return False
    return True
