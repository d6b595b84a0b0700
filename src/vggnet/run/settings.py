"""The keywords of `vggnet.train` for type checkers and editors, which do not run code.

A test compares names and types with the configuration, which decides what is valid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict

Table = Mapping[str, Any]
"""A section of a settings file."""


class Settings(TypedDict, total=False):
    """Values that override a recipe, by the names of the command line's flags; or tables."""

    # The network. Layers are written as on the command line, or as sequences.
    model: str | Table
    stages: str | Sequence[Sequence[int | str]] | None
    hidden: str | Sequence[int] | None
    width: float
    batch_norm: bool
    dropout: float
    initialization: Literal["torch", "he"]

    # The images.
    data: Table
    data_dir: str | Path | None
    download: bool
    image_size: int | None
    skip_bad: bool
    common_classes: bool
    class_folders: Literal["outer", "inner"] | None
    bit_depth: int | None
    cache: bool | None
    validation_size: int | None
    calibration_size: int
    mean: str | Sequence[float]
    std: str | Sequence[float]

    # Random changes to them.
    augment: Table
    rotation: float
    shift: float
    scale: float
    shear: float
    flip: bool

    # The training.
    train: Table
    init: str | None
    freeze: int | Literal["features"]
    init_lr: float
    epochs: float
    min_steps: int
    minutes: float | None
    batch_size: int
    opt: Literal["adam", "adamw", "muon"]
    lr: float
    betas: tuple[float, float]
    weight_decay: float
    sched: Literal["constant", "linear"]
    warmup_fraction: float
    growth_fraction: float
    average_decay: float
    smoothing: float
    class_weights: Literal["none", "balanced"]
    patience: int | None
    keep: Literal["last", "best"]
    seed: int
    device: str
    precision: Literal["fp32", "tf32", "bf16", "fp16"]
    threads: int | None
    kernels: Literal["auto", "winograd", "torch"]
