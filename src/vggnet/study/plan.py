"""What a study of depth trains: every member with every seed, all else alike."""

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
"""Laid over the recipe. Without batch norm and He's initialization the deepest members do not
begin to learn at all. (The paper, before either was known, began D and E from the trained layers
of A.) Muon would treat their wide layers and their narrow ones differently."""

MAY_DIFFER = ("recipe", "model.architecture", "train.seed", "data.data_dir", "data.download")
"""Settings in which the runs of a study may differ."""


@dataclass(frozen=True)
class Run:
    """One training of a study."""

    config: Config

    @property
    def name(self) -> str:
        """What its folder and its model file are called."""
        return f"{self.config.model.architecture}-seed{self.config.train.seed}"


@dataclass(frozen=True)
class Study:
    """All trainings, and where they leave what they find."""

    runs: tuple[Run, ...]
    """Seed by seed, so that a study cut short has every member."""
    output: Path

    @property
    def settings(self) -> dict[str, Any]:
        """What all runs have in common."""
        return shared_settings(self.runs[0].config)


def plan_study(
    models: Sequence[str], seeds: int, output: Path, layers: Sequence[Mapping[str, Any]]
) -> Study:
    """Settle what is trained.

    Args:
        models: Members of the family: "A" or "vgg-a".
        seeds: Trainings of each, with seeds 0, 1, …
        output: The study's folder.
        layers: Settings over the recipe's, the later ones winning; see `resolve_config`.

    Raises:
        ConfigError: A member or a setting is not known, or stands twice.
    """
    names = [_find_member(model) for model in models]
    if len(set(names)) < len(names):
        raise ConfigError(f"--models names a member twice: {','.join(models)}")
    for layer in layers:
        for section, name, flag in (
            ("model", "architecture", "--models"),
            ("train", "seed", "--seeds"),
        ):
            fields = layer.get(section)
            if isinstance(fields, Mapping) and name in fields:
                raise ConfigError(f"a study sets {section}.{name} itself; see {flag}")
    runs = [
        Run(
            resolve_config(
                DEFAULTS, *layers, {"model": {"architecture": name}, "train": {"seed": seed}}
            )
        )
        for seed in range(seeds)
        for name in names
    ]
    return Study(tuple(runs), output)


def shared_settings(config: Config) -> dict[str, Any]:
    """Return the settings that every run of a study must have alike, by dotted name."""
    return {name: value for name, value in flatten(config).items() if name not in MAY_DIFFER}


def _find_member(model: str) -> str:
    for name in (model.lower(), f"vgg-{model.lower()}"):
        if name in ARCHITECTURES:
            return name
    raise ConfigError(f"unknown model {model!r}; {suggest(model, ARCHITECTURES)}")
