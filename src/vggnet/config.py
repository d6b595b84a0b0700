"""One frozen object that says everything that decides a run; stored with the model."""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from vggnet.architectures import ARCHITECTURES, Architecture, Layer, read_layer, widen
from vggnet.errors import ConfigError

Fraction = Annotated[float, Field(ge=0, lt=1)]


class _Section(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )


def _flag(*spellings: str) -> dict[str, Any]:
    """Spell a field's command line flag as timm and torchvision do."""
    return {"flag": list(spellings)}


class ModelConfig(_Section):
    """The network: which member of the VGG family, for which images."""

    architecture: str = Field("vgg-mini", json_schema_extra=_flag("--model"))
    """Member of the family: vgg-mini, or vgg-a, vgg-a-lrn, vgg-b, vgg-c, vgg-d, vgg-e."""

    stages: tuple[tuple[Layer, ...], ...] | None = None
    """Your own stages instead: "32,32/64,64", or a list of lists in a file."""

    hidden: tuple[int, ...] | None = None
    """Your own widths of the hidden fully connected layers: "128"."""

    width: float = Field(1.0, gt=0, le=16)
    """Times as many channels and hidden values in every layer, in multiples of 8."""

    batch_norm: bool = False
    """Normalize after each convolution; folded into it when the model is saved."""

    dropout: Fraction = 0.5
    """Share of hidden activations zeroed in training."""

    initialization: Literal["torch", "he"] = "torch"
    """torch: PyTorch's default; he: normal with variance 2/fan-in, biases zero."""

    in_channels: int = Field(1, ge=1, le=64, json_schema_extra=_flag())
    """Colour channels of an image; taken from the data."""

    num_classes: int = Field(10, ge=1, le=100_000, json_schema_extra=_flag())
    """Classes to tell apart; taken from the data."""

    image_size: int = Field(28, ge=1, le=1024, json_schema_extra=_flag())
    """Pixels a side of the image that the network takes; taken from the data."""

    @field_validator("architecture")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in (*ARCHITECTURES, "custom"):
            raise ValueError(f"unknown model {name!r}; {suggest(name, ARCHITECTURES)}")
        return name

    @field_validator("stages", mode="before")
    @classmethod
    def _read_stages(cls, value: object) -> object:
        if isinstance(value, list):  # as JSON has it; strict validation wants tuples
            return tuple(tuple(stage) if isinstance(stage, list) else stage for stage in value)
        if not isinstance(value, str):
            return value
        return tuple(
            tuple(int(layer) if layer.isdecimal() else layer for layer in stage.split(","))
            for stage in value.replace(" ", "").split("/")
        )

    @field_validator("hidden", mode="before")
    @classmethod
    def _read_hidden(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(
                int(part) if part.isdecimal() else part for part in value.split(",") if part
            )
        return tuple(value) if isinstance(value, list) else value

    @field_validator("hidden")
    @classmethod
    def _positive(cls, hidden: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if hidden and min(hidden) < 1:
            raise ValueError("every width must be at least 1")
        return hidden

    @model_validator(mode="after")
    def _convolutions_first(self) -> Self:
        if self.architecture == "custom" and (self.stages is None or self.hidden is None):
            raise ValueError("a custom model needs both stages and hidden")
        for stage in self.layers.stages:
            if not stage or read_layer(stage[0]) is None:
                raise ValueError("every stage must begin with a convolution")
            if any(read_layer(layer) is None for layer in stage[1:-1]):
                raise ValueError("lrn can only end a stage")
        if self.layers.stages and read_layer(self.layers.stages[-1][-1]) is None:
            # It has no weights, and none after it to be numbered by: a file could not tell of it.
            raise ValueError("lrn can end every stage but the last")
        return self

    @property
    def layers(self) -> Architecture:
        """The table's row, or `stages` and `hidden` where they are given, times `width`."""
        return widen(self._row, self.width)

    @property
    def _row(self) -> Architecture:
        row = ARCHITECTURES.get(self.architecture, Architecture((), ()))
        return Architecture(
            row.stages if self.stages is None else self.stages,
            row.hidden if self.hidden is None else self.hidden,
        )

    @property
    def name(self) -> str:
        """The name of the table's row, or "custom" for another, and the width if it is not 1."""
        own = self._row == ARCHITECTURES.get(self.architecture)
        times = f" × {self.width:g}" if self.width != 1 else ""
        return f"{self.architecture if own else 'custom'}{times}"

    @property
    def depth(self) -> int:
        """Layers with weights, as the paper counts them: 11 in A, 19 in E."""
        convolutions = [layer for stage in self.layers.stages for layer in stage if layer != "lrn"]
        return len(convolutions) + len(self.layers.hidden) + 1

    @property
    def downsampling(self) -> int:
        """Input pixels to a side of one pixel of the last feature map."""
        return int(2 ** len(self.layers.stages))


class DataConfig(_Section):
    """The images: which, from where, and how their pixels are scaled."""

    dataset: str = "mnist"
    """Dataset to train on: a name from `vggnet data list`, or the path of your own data."""

    data_dir: Path | None = None
    """Folder that holds the dataset in torchvision's layout, raw or gzipped."""

    download: bool = True
    """Fetch a dataset that is not on this machine."""

    image_size: int | None = Field(None, ge=8, le=1024)
    """Pixels a side that your own images are fitted to; default: their size up to 64, else 32."""

    skip_bad: bool = False
    """Leave out images that cannot be read."""

    common_classes: bool = False
    """Leave out classes that are not in both the training and the test split."""

    bit_depth: int | None = Field(None, ge=1, le=16)
    """Bits of the values in 16-bit images; default: what the largest value in the dataset needs."""

    cache: bool | None = None
    """Keep decoded images on disk instead of in memory; default: if they take over 1 GiB."""

    validation_size: int = Field(0, ge=0)
    """Training images held out and evaluated after each epoch, to choose settings by."""

    mean: tuple[float, ...] = Field((0.5,), min_length=1, json_schema_extra=_flag())
    """Subtracted from pixels in [0, 1], one value or one for each channel."""

    std: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (0.5,), min_length=1, json_schema_extra=_flag()
    )
    """Divides after that; 0.5 and 0.5 give [-1, 1], as in the article."""


class AugmentConfig(_Section):
    """How far each training image is moved at random, every time it is seen."""

    rotation: float = Field(0.0, ge=0, le=180)
    """Degrees that a training image is turned at most, to either side."""

    shift: float = Field(0.0, ge=0, le=1024)
    """Pixels that it is moved at most, in each direction."""

    scale: Fraction = 0.0
    """Share by which it is drawn larger or smaller at most: 0.1 gives 0.9 to 1.1."""

    shear: float = Field(0.0, ge=0, le=60)
    """Degrees by which its uprights are slanted at most, to either side."""

    flip: bool = False
    """Mirror every other image, left for right: for clothes, never for digits."""

    @property
    def is_active(self) -> bool:
        """Whether anything is asked for."""
        return self != AugmentConfig()


class TrainConfig(_Section):
    """The training: how long, by which rule, and where."""

    epochs: float = Field(10, gt=0, le=100_000)
    """Passes over the training images; may be a fraction."""

    global_batch_size: int = Field(
        128, ge=1, le=1_000_000, json_schema_extra=_flag("--batch-size", "-b")
    )
    """Images per optimizer step, summed over all processes."""

    optimizer: Literal["adam", "adamw", "muon"] = Field("adam", json_schema_extra=_flag("--opt"))
    """adam: arXiv 1412.6980; adamw: with decoupled weight decay, arXiv 1711.05101; muon: adamw,
    but with orthogonal steps for convolutions of up to 128 channels."""

    peak_lr: float = Field(1e-3, gt=0, le=10, json_schema_extra=_flag("--lr"))
    """Learning rate at its highest."""

    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    """Decay of the optimizer's averages of the gradient and of its square."""

    weight_decay: float = Field(0.0, ge=0)
    """Pull of the weights towards zero."""

    schedule: Literal["constant", "linear"] = Field("constant", json_schema_extra=_flag("--sched"))
    """constant: peak rate throughout; linear: up during the warm-up, then down to zero."""

    warmup_fraction: Fraction = 0.0
    """Share of all steps in which the linear schedule rises."""

    average_decay: Fraction = 0.0
    """Keep this share of a running average of the weights at each step, and evaluate and
    save the average; 0: the last step's weights."""

    label_smoothing: Fraction = Field(0.0, json_schema_extra=_flag("--smoothing"))
    """Probability taken from the true class and spread over all."""

    seed: int = Field(0, ge=0, lt=2**63)
    """Seed of the initial weights, the order of the images, and dropout."""

    device: str = "auto"
    """auto, cpu, cuda, cuda:N, mps, xpu or xpu:N; auto takes the first that is there."""

    precision: Literal["fp32", "tf32", "bf16", "fp16"] = "fp32"
    """Number type of the convolutions and products."""

    threads: int | None = Field(None, ge=1, le=4096)
    """CPU threads; by default as many cores as this process may use."""

    kernels: Literal["auto", "winograd", "torch"] = "auto"
    """3x3 convolutions on a CPU: compiled here where that can be, or torch's own."""

    @field_validator("device")
    @classmethod
    def _spelt_right(cls, device: str) -> str:
        if not re.fullmatch(r"auto|cpu|mps|(cuda|xpu)(:\d+)?", device):
            raise ValueError(f"unknown device {device!r}; use auto, cpu, cuda, cuda:1, mps or xpu")
        return device


class Config(_Section):
    """Everything that decides a run."""

    recipe: str = "fast"
    """Name of the recipe that the other values started from."""

    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    augment: AugmentConfig = AugmentConfig()
    train: TrainConfig = TrainConfig()


SECTIONS: dict[str, type[_Section]] = {
    "model": ModelConfig,
    "data": DataConfig,
    "augment": AugmentConfig,
    "train": TrainConfig,
}


def flatten(config: Config) -> dict[str, Any]:
    """Return all settings by dotted name, such as "train.epochs", as plain values for JSON."""
    values = config.model_dump(mode="json")
    for section in SECTIONS:
        values |= {f"{section}.{name}": value for name, value in values.pop(section).items()}
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


class Difference(NamedTuple):
    """A setting that two configurations do not share."""

    name: str
    """Dotted: "train.epochs"."""
    before: Any
    now: Any

    def __str__(self) -> str:
        return f"{self.name} was {self.before} and is now {self.now}"


def differences(before: Config, now: Config, ignore: Container[str] = ()) -> list[Difference]:
    """Compare two configurations, except for the settings and whole sections in `ignore`."""
    old, new = flatten(before), flatten(now)
    return [
        Difference(name, old[name], new[name])
        for name in new
        if old[name] != new[name] and name not in ignore and name.partition(".")[0] not in ignore
    ]


def suggest(name: str, known: object) -> str:
    """Say the nearest valid name, or all of them when none is near."""
    names = [str(one) for one in known]  # type: ignore[attr-defined]
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"use one of: {', '.join(names)}"


def build_config(values: dict[str, Any]) -> Config:
    """Validate nested plain values, as they stand in a file.

    Raises:
        ConfigError: Naming every unknown key, with the nearest valid one, and every bad value.
    """
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise ConfigError("; ".join(_explain(one) for one in error.errors())) from None


def _explain(error: Any) -> str:
    """Put one of pydantic's findings into a sentence."""
    path = [str(part) for part in error["loc"]]
    where = ".".join(path)
    if error["type"] == "extra_forbidden":
        owner: type[_Section] = SECTIONS[path[0]] if len(path) > 1 else Config
        return f"unknown key {where!r}; {suggest(path[-1], owner.model_fields)}"
    message = error["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    if error["type"] in ("value_error", "missing"):
        return f"{where}: {message}" if where else message
    return f"{where}: {message}, not {error['input']!r}"


def load_overrides(path: Path) -> dict[str, Any]:
    """Read a TOML or JSON file of settings, told apart by its name.

    Raises:
        ConfigError: The file cannot be read, or does not hold a table of settings.
    """
    try:
        text = path.read_text(encoding="utf-8")
        values = json.loads(text) if path.suffix.lower() == ".json" else tomllib.loads(text)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not valid TOML or JSON: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold a table with the keys {', '.join(SECTIONS)}")
    return values
