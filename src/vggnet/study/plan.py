"""What a study of depth trains: every network with every seed, all other settings equal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vggnet.architectures import ARCHITECTURES
from vggnet.config import Config, flatten, suggest
from vggnet.errors import ConfigError
from vggnet.recipes import resolve_config

DEFAULTS: dict[str, dict[str, Any]] = {
    "model": {"batch_norm": True, "initialization": "he"},
    "train": {"optimizer": "adamw"},
}
"""These override the recipe. Without batch norm and He initialization the deepest networks do not
start to learn. (The paper had neither and started D and E from trained layers of A.) Muon would
update wide and narrow layers by different rules."""

MAY_DIFFER = ("recipe", "model.architecture", "train.seed", "data.data_dir", "data.download")
"""Settings that may differ between the runs of a study."""


@dataclass(frozen=True)
class Study:
    """All trainings and the folder for their results."""

    runs: dict[str, Config]
    """By name, seed by seed, so that an interrupted study has every network."""
    output: Path


def plan_study(
    models: Sequence[str], seeds: int, output: Path, layers: Sequence[Mapping[str, Any]]
) -> Study:
    """Plan a study.

    Args:
        models: Members of the VGG family: "A" or "vgg-a".
        seeds: Trainings of each, with seeds 0, 1, …
        output: The study's folder.
        layers: Settings that override the recipe's; see `resolve_config`.

    Raises:
        ConfigError: A network or a setting is unknown, or a network is named twice.
    """
    names = [_find_member(model) for model in models]
    if len(set(names)) < len(names):
        raise ConfigError(f"--models names a network twice: {','.join(models)}")
    own = {("model", "architecture"): "--models", ("train", "seed"): "--seeds"}
    for layer in layers:
        for (section, name), flag in own.items():
            fields = layer.get(section)
            if isinstance(fields, Mapping) and name in fields:
                raise ConfigError(f"a study sets {section}.{name} itself; use {flag}")
    runs = {
        f"{name}-seed{seed}": resolve_config(
            DEFAULTS, *layers, {"model": {"architecture": name}, "train": {"seed": seed}}
        )
        for seed in range(seeds)
        for name in names
    }
    return Study(runs, output)


def shared_settings(config: Config) -> dict[str, Any]:
    """Return the settings that all runs of a study share, by dotted name."""
    return {name: value for name, value in flatten(config).items() if name not in MAY_DIFFER}


def _find_member(model: str) -> str:
    for name in (model.lower(), f"vgg-{model.lower()}"):
        if name in ARCHITECTURES:
            return name
    raise ConfigError(f"unknown model {model!r}; {suggest(model, ARCHITECTURES)}")
