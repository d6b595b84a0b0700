"""Recipes, settings that override them, and files of settings ► a configuration."""

from __future__ import annotations

import errno
import json
import stat
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from vggnet.config import SECTIONS, Config, DataConfig, list_keywords, suggest
from vggnet.errors import ConfigError

_FAST: dict[str, dict[str, Any]] = {
    "model": {"dropout": 0.0},
    "data": {"calibration_size": 2000},
    "train": {
        "epochs": 0.7,
        "min_steps": 300,
        "global_batch_size": 96,
        "optimizer": "muon",
        "peak_lr": 6.5e-3,
        "betas": (0.9, 0.99),
        "schedule": "linear",
        "warmup_fraction": 0.2,
        "label_smoothing": 0.1,
    },
}

RECIPES: dict[str, dict[str, dict[str, Any]]] = {
    # Exactly the article's training: ten epochs of Adam with a constant learning rate.
    "article": {},
    # docs/decisions/fast-recipe.md explains the values.
    "fast": _FAST,
    # For --init: no other settings beat those of `fast`, docs/decisions/small-sets.md.
    "finetune": _FAST,
    # docs/decisions/best-recipe.md explains the values.
    "best": {
        "model": {"batch_norm": True, "dropout": 0.0},
        "augment": {"rotation": 15.0, "shift": 2.0, "scale": 0.15, "shear": 15.0},
        "train": {
            "epochs": 40,
            "optimizer": "adamw",
            "peak_lr": 4e-3,
            "betas": (0.9, 0.99),
            "weight_decay": 0.1,
            "schedule": "linear",
            "warmup_fraction": 0.2,
            "average_decay": 0.998,
            "label_smoothing": 0.1,
        },
    },
}

DEFAULT_RECIPE = "fast"

_ON_DATASETS: dict[tuple[str, str], dict[str, Any]] = {
    # Images that grow, and fewer of them, cost no accuracy here, but a point on clothes.
    ("fast", "mnist"): {"epochs": 0.55, "growth_fraction": 0.75},
}
"""Training settings of a recipe that differ on one dataset."""


def resolve_config(*layers: Mapping[str, Any]) -> Config:
    """Override a recipe's settings; later layers override earlier ones.

    Args:
        layers: Nested settings, as in a file. The last `recipe` among them names the recipe to
            start from; without any it is the default.

    Raises:
        ConfigError: A recipe, key or value is invalid.
    """
    recipe, dataset = DEFAULT_RECIPE, DataConfig().dataset
    for layer in layers:
        recipe = layer.get("recipe", recipe)
        if isinstance(data := layer.get("data"), Mapping):
            dataset = data.get("dataset", dataset)
    if not isinstance(recipe, str) or recipe not in RECIPES:
        raise ConfigError(f"unknown recipe {recipe!r}; {suggest(str(recipe), RECIPES)}")
    merged: dict[str, Any] = {"recipe": recipe, **RECIPES[recipe]}
    if isinstance(dataset, str) and (own := _ON_DATASETS.get((recipe, dataset))):
        merged["train"] = {**merged["train"], **own}
    for layer in layers:
        for key, value in layer.items():
            if key not in SECTIONS:
                merged[key] = value
            elif isinstance(value, Mapping):
                # A given number of epochs is exact: the minimum of steps does not apply.
                exact = {"min_steps": 0} if key == "train" and "epochs" in value else {}
                merged[key] = {**merged.get(key, {}), **exact, **value}
            else:
                raise ConfigError(f"{key}: must be a table of settings, not {value!r}")
    return build_config({**merged, "recipe": recipe})


def nest_settings(settings: Mapping[str, Any], others: Iterable[str] = ()) -> dict[str, Any]:
    """Turn flat settings, such as `epochs=2`, into nested ones, such as `train={"epochs": 2}`.

    Args:
        settings: By the name of the flag, or of the field. Tables stay as they are, and what is
            flat overrides them; `model` may be a table or the name of an architecture.
        others: More names that a misspelled one may mean.

    Raises:
        ConfigError: A name is unknown.
    """
    known = {name: place for place in list_keywords().values() for name in place[1:]}
    known |= list_keywords()
    nested: dict[str, Any] = {
        key: value
        for key, value in settings.items()
        if key in SECTIONS and (key not in known or isinstance(value, Mapping))
    }
    for name, value in settings.items():
        if name in nested:
            continue
        if name not in known:
            raise ConfigError(
                f"unknown setting {name!r}; {suggest(name, [*list_keywords(), *others])}"
            )
        section, field = known[name]
        table = nested.get(section, {})
        if isinstance(table, Mapping):  # `resolve_config` refuses anything else
            nested[section] = {**table, field: value}
    return nested


def build_config(values: Mapping[str, Any]) -> Config:
    """Validate nested plain values, as in a file.

    Raises:
        ConfigError: It names every unknown key, with the most similar valid one, and every
            invalid value.
    """
    try:
        return Config.model_validate(dict(values))
    except ValidationError as error:
        raise ConfigError("; ".join(_explain(one) for one in error.errors())) from None


def _explain(error: Any) -> str:
    """Turn one of pydantic's errors into a sentence."""
    path = [str(part) for part in error["loc"]]
    where = ".".join(path)
    if error["type"] == "extra_forbidden":
        owner: type[BaseModel] = SECTIONS[path[0]] if len(path) > 1 else Config
        return f"unknown key {where!r}; {suggest(path[-1], owner.model_fields)}"
    message = error["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    if error["type"] in ("value_error", "missing"):
        return f"{where}: {message}" if where else message
    return f"{where}: {message}, not {error['input']!r}"


def load_overrides(path: Path) -> dict[str, Any]:
    """Load settings from a TOML or JSON file; the suffix .json means JSON.

    Raises:
        ConfigError: The file cannot be read, or does not contain a table of settings.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would be waited for
            raise OSError(errno.EINVAL, "not a regular file")
        text = path.read_text(encoding="utf-8")
        values = json.loads(text) if path.suffix.lower() == ".json" else tomllib.loads(text)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not valid TOML or JSON: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must contain a table with the keys {', '.join(SECTIONS)}")
    return values


def unflatten(settings: Mapping[str, Any]) -> Config:
    """Return the configuration that `flatten` turned into `settings`; any may be missing.

    Raises:
        ConfigError: A name is unknown or a value is invalid.
    """
    nested: dict[str, Any] = {}
    for name, value in settings.items():
        section, _, field = name.rpartition(".")
        (nested.setdefault(section, {}) if section else nested)[field] = value
    return build_config(nested)
