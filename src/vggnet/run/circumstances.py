"""What a checkpoint says of the training it belongs to, and what may differ when resumed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from vggnet import __version__
from vggnet.config import Config, ModelConfig, build_config, differences
from vggnet.engine.device import cpu_name
from vggnet.errors import ConfigError
from vggnet.run.plan import Plan

_FREE = {
    "train.epochs",
    "train.threads",
    "train.device",
    "train.kernels",
    "data.dataset",
    "data.data_dir",
    "data.download",
    "data.cache",
}
"""Settings that leave the training what it is; what they come to is compared instead."""


def describe_circumstances(plan: Plan, kernels: str) -> dict[str, Any]:
    """Return what the bits of the training depend on beside its configuration."""
    return {
        "processes": plan.session.world_size,
        "threads": plan.threads,
        "device": plan.device.type,
        "processor": cpu_name(),
        "cpu_isa": torch.backends.cpu.get_cpu_capability(),
        "kernels": kernels,
        "torch": str(torch.__version__),
        "vggnet": __version__,
    }


def check_same_training(recorded: Mapping[str, Any], config: Config, step: int) -> None:
    """Refuse to go on with a configuration under which the training would be another.

    Args:
        recorded: The configuration that the checkpoint holds, as plain values.
        config: The one to go on with.
        step: Steps taken so far.

    Raises:
        ConfigError: Naming every setting that differs.
    """
    # A checkpoint of an older version lacks newer settings, whose defaults change nothing.
    before = build_config(dict(recorded))
    # A linear schedule depends on the number of epochs.
    free = _FREE if config.train.schedule == "constant" else _FREE - {"train.epochs"}
    if changed := differences(before, config, free):
        raise ConfigError(
            f"{'; '.join(map(str, changed))}: after {step} steps that would "
            "be another training. Leave it as it was, or start a new run without --resume"
        )


def check_same_images(recorded: str, sha256: str) -> None:
    """Refuse to go on with other images.

    Raises:
        ConfigError: The dataset's hash is not the recorded one.
    """
    if recorded != sha256:
        raise ConfigError(
            f"the dataset has changed: its SHA-256 was {recorded[:12]}… and is now {sha256[:12]}…; "
            "give the images that the run began with, or start a new run without --resume"
        )


def compare_circumstances(
    recorded: Mapping[str, Any], now: Mapping[str, Any], model: ModelConfig
) -> list[str]:
    """Say what else has changed, and by how much the result can differ for it.

    Raises:
        ConfigError: The number of processes has changed and the network has batch norm,
            whose statistics are those of each process's share.
    """
    before = recorded.get("processes")
    if model.batch_norm and before != now["processes"]:
        raise ConfigError(
            f"the run had {before} processes and now has {now['processes']}: with batch norm, "
            "which each computes over its own share of a batch, that would be another training"
        )
    changed = {key: value for key, value in now.items() if recorded.get(key) != value}
    drawn = ("processes", "device") if model.dropout else ()
    return [
        f"{key} was {recorded.get(key)} and is now {value}: "
        + ("dropout draws other units" if key in drawn else "results can differ in their last bits")
        for key, value in changed.items()
    ]
