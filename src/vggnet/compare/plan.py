"""What to measure: strict settings, candidates for the best, and the points of a sweep."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch

from vggnet.compare.measure import Workload
from vggnet.compare.result import Setting
from vggnet.config import Config, ModelConfig
from vggnet.data.dataset import Dataset, hold_out
from vggnet.data.storage import load_configured
from vggnet.engine.device import check_precision, choose_device, why_unavailable
from vggnet.engine.processor import usable_cores
from vggnet.engine.schedule import count_steps
from vggnet.engine.session import Session
from vggnet.errors import ConfigError, DeviceError, KernelError
from vggnet.kernels import accelerate
from vggnet.model.vgg import build_network
from vggnet.run import fit_to_data
from vggnet.run.calibration import choose_calibration_images

SweepKind = Literal["batch", "width"]

DEFAULT_STEPS = 100
BATCHES = (8, 32, 128, 512, 2048)
"""Batch sizes of a sweep, in addition to the recipe's."""
WIDTHS = (0.25, 0.5, 1.0, 2.0)
"""Widths of a sweep, as multiples of the network's; FLOP grow with the square."""
_BATCH_MULTIPLES = {"cpu": (1, 4)}
_GPU_BATCH_MULTIPLES = (1, 4, 16)
"""Candidate batch sizes, as multiples of the common one."""


class Observer:
    """Receives the progress of a comparison; this one ignores it."""

    def began(self, what: str) -> None:
        """A phase starts, which may take minutes."""

    def expected(self, seconds: float) -> None:
        """The estimated time left, known after the warm-up."""

    def advanced(self, seconds: float) -> None:
        """Part of the estimated time is done; called at every timed step."""

    def warned(self, message: str) -> None:
        """Something was left out."""


@dataclass(frozen=True)
class Goal:
    """An accuracy that complete trainings are to reach."""

    target: float | None
    """Test accuracy from 0 to 1; None: the article's recipe's mean."""
    seeds: int
    """Trainings of each recipe on each device, with seeds 0, 1, …"""
    recipe: Config
    """The recipe to train with."""
    article: Config
    """The article's recipe for the same network and data."""


@dataclass(frozen=True)
class ComparisonPlan:
    """What to compare."""

    config: Config
    """Complete: classes, channels and image size are the dataset's. Images do not grow."""
    dataset: Dataset
    devices: tuple[torch.device, ...]
    threads: tuple[int, ...]
    """CPU thread counts in ascending order."""
    steps: int
    """Optimizer steps of a row at the common batch size."""
    repeats: int
    sweep: SweepKind | None
    min_seconds: float = 1.0
    """Duration of a repeat: a shorter training is repeated until then."""
    goal: Goal | None = None
    options: str = ""
    """Flags that request the same work on another machine."""
    command: str | None = None
    """The command line, if there is one."""

    @property
    def images(self) -> int:
        """Images of a row; a short last batch has fewer."""
        return self.steps * self.config.train.global_batch_size

    def workload(self, setting: Setting, images: float, config: Config | None = None) -> Workload:
        """Return a training on about this many images, by default with the plan's config."""
        steps = max(1, round(images / setting.global_batch_size))
        return Workload(setting, config or self.config, self.dataset, steps)


def plan_comparison(
    config: Config,
    *,
    devices: Sequence[str] | None = None,
    threads: tuple[int, ...] | None = None,
    steps: int | None = None,
    epochs: float | None = None,
    repeats: int = 5,
    min_seconds: float = 1.0,
    sweep: Literal["batch", "width", "none"] | None = None,
    goal: Goal | None = None,
) -> ComparisonPlan:
    """Load the data and complete the plan, before anything is measured.

    Args:
        config: The recipe's configuration.
        devices: Device names; by default every available kind.
        threads: CPU thread counts; by default 1, 2, 4 … up to all cores.
        steps: Steps of a row; by default `DEFAULT_STEPS`.
        epochs: Epochs of a row, instead of `steps`.
        repeats: Repeats of each row.
        min_seconds: Minimum duration of a repeat.
        sweep: By default "batch" without a GPU, otherwise "none".
        goal: An accuracy for complete trainings.

    Raises:
        ConfigError: A value is invalid.
        DeviceError: A device is not available.
        DataError: The dataset cannot be loaded.
    """
    if steps is not None and epochs is not None:
        raise ConfigError("--steps and --epochs exclude each other")
    if epochs is not None and not 0 < epochs <= 1000:
        raise ConfigError(f"--epochs must be above 0 and at most 1000, not {epochs:g}")
    if not 0 <= min_seconds <= 3600:
        raise ConfigError(f"--min-seconds must be from 0 to 3600, not {min_seconds:g}")
    chosen = choose_devices(devices)
    dataset = load_configured(config.data)
    config = fit_to_data(config, dataset, Session())
    # Steps of a row take equally long only with images of one size.
    train_settings = config.train.model_copy(update={"growth_fraction": 0.0})
    config = config.model_copy(update={"train": train_settings})
    if goal:
        recipe, article = (
            fit_to_data(one, dataset, Session()) for one in (goal.recipe, goal.article)
        )
        goal = replace(goal, recipe=recipe, article=article)
    train, validation = hold_out(dataset.train, config.data.validation_size or 0, config.train.seed)
    train, _ = choose_calibration_images(config, train, validation or dataset.validation)
    if epochs is not None:
        steps = count_steps(epochs, -(-len(train) // config.train.global_batch_size))
    if sweep is None:
        sweep = "batch" if all(device.type == "cpu" for device in chosen) else "none"
    return ComparisonPlan(
        config=config,
        dataset=replace(dataset, train=train),
        devices=chosen,
        threads=threads or default_threads(),
        steps=steps or DEFAULT_STEPS,
        repeats=repeats,
        min_seconds=min_seconds,
        goal=goal,
        sweep=None if sweep == "none" else sweep,
    )


def choose_devices(names: Sequence[str] | None) -> tuple[torch.device, ...]:
    """Turn names into available devices; None selects every available kind.

    Raises:
        ConfigError: A device is named twice.
        DeviceError: A device is unknown or not available.
    """
    if names is None:
        kinds = [kind for kind in ("cpu", "cuda", "mps", "xpu") if why_unavailable(kind) is None]
        return tuple(choose_device(kind) for kind in kinds)
    devices: list[torch.device] = []
    for name in names:
        kind, _, index = name.partition(":")
        reason = why_unavailable(kind)
        if reason:
            raise DeviceError(
                f"--devices {name}: {reason}; leave it out, or run vggnet compare where it is "
                "available and pass both compare.json files to vggnet compare"
            )
        if index and not index.isdecimal():
            raise DeviceError(f"--devices {name}: not a device; use cpu, cuda, cuda:1, mps or xpu")
        device = choose_device(name)
        if device in devices:
            raise ConfigError(f"--devices names {device} twice")
        devices.append(device)
    return tuple(devices)


def default_threads() -> tuple[int, ...]:
    """Return the powers of two below the number of usable cores, and that number."""
    cores = usable_cores()
    return tuple(sorted({2**power for power in range(cores.bit_length())} | {cores}))


def strict_settings(plan: ComparisonPlan, device: torch.device) -> list[Setting]:
    """Return full fp32 with PyTorch's own kernels, on a CPU with each thread count."""
    return [
        Setting(
            device=str(device),
            precision="fp32",
            global_batch_size=plan.config.train.global_batch_size,
            threads=threads,
            kernels="torch",
        )
        for threads in (plan.threads if device.type == "cpu" else (None,))
    ]


def candidate_settings(plan: ComparisonPlan, device: torch.device) -> Iterator[Setting]:
    """Yield the settings that may be a device's fastest, strict ones included.

    On a CPU only the two highest thread counts: no smaller one has won in our measurements.
    """
    own = plan.config.train.global_batch_size
    multiples = _BATCH_MULTIPLES.get(device.type, _GPU_BATCH_MULTIPLES)
    sizes = [own * by for by in multiples if by == 1 or own * by <= len(plan.dataset.train)]
    compiled = device.type == "cpu" and kernels_fit(plan.config.model)
    for precision in ("fp32", "tf32", "bf16", "fp16"):
        try:
            check_precision(precision, device)
        except DeviceError:
            continue
        for kernels in ("torch", "winograd") if compiled and precision == "fp32" else ("torch",):
            for size in sizes:
                changes = {"precision": precision, "global_batch_size": size, "kernels": kernels}
                for setting in strict_settings(plan, device)[-2:]:
                    yield setting.model_copy(update=changes)


def kernels_fit(config: ModelConfig) -> bool:
    """Whether the compiled kernels work for this network; compiles them on first use."""
    try:
        accelerate(build_network(config, 0), "winograd")
    except KernelError:
        return False
    return True
