"""Named configurations: what `--recipe` takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vggnet.config import SECTIONS, Config, build_config, suggest
from vggnet.errors import ConfigError

RECIPES: dict[str, dict[str, dict[str, Any]]] = {
    # The article's training to the letter: ten epochs of Adam at a constant rate.
    "article": {},
    # docs/decisions/fast-recipe.md says how these values were chosen.
    "fast": {
        "model": {"dropout": 0.0},
        "train": {
            "epochs": 0.75,
            "global_batch_size": 96,
            "optimizer": "muon",
            "peak_lr": 5.5e-3,
            "betas": (0.9, 0.99),
            "schedule": "linear",
            "warmup_fraction": 0.2,
            "label_smoothing": 0.1,
        },
    },
    # docs/decisions/best-recipe.md says how these values were chosen.
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


def resolve_config(*layers: Mapping[str, Any]) -> Config:
    """Lay settings over a recipe's, the later ones winning.

    Args:
        layers: Nested settings as a file holds them. The last `recipe` among them
            names the recipe underneath; without one it is the default.

    Raises:
        ConfigError: A recipe, key or value is not valid.
    """
    recipe = DEFAULT_RECIPE
    for layer in layers:
        recipe = layer.get("recipe", recipe)
    if not isinstance(recipe, str) or recipe not in RECIPES:
        raise ConfigError(f"unknown recipe {recipe!r}; {suggest(str(recipe), RECIPES)}")
    merged: dict[str, Any] = {"recipe": recipe}
    for layer in (RECIPES[recipe], *layers):
        for key, value in layer.items():
            if key not in SECTIONS:
                merged[key] = value
            elif isinstance(value, Mapping):
                merged[key] = {**merged.get(key, {}), **value}
            else:
                raise ConfigError(f"{key}: must be a table of settings, not {value!r}")
    return build_config({**merged, "recipe": recipe})
