"""The configuration: one frozen object that decides a run, and is stored with the model."""

from __future__ import annotations

import difflib
import re
from collections.abc import Container, Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from vggnet.architectures import (
    ARCHITECTURES,
    MAX_WIDTH,
    Architecture,
    Layer,
    check_stages,
    read_layers,
    widen,
)

Fraction = Annotated[float, Field(ge=0, lt=1)]


def check_text(text: str) -> str:
    """Return a text that can be a file name and can be written as JSON.

    Raises:
        ValueError: It contains NUL, or bytes that are not valid Unicode.
    """
    if any(one == "\0" or "\ud800" <= one <= "\udfff" for one in text):
        raise ValueError("must be valid Unicode without NUL characters")
    return text


class _Section(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )

    @field_validator("*")
    @classmethod
    def _valid_text(cls, value: object) -> object:
        if isinstance(value, str | Path):
            check_text(str(value))
        return value


def _flag(*spellings: str) -> dict[str, Any]:
    """Name a field's command line flag, as timm and torchvision do; no name: no flag."""
    return {"flag": list(spellings)}


class ModelConfig(_Section):
    """The network: a member of the VGG family, and the images it takes."""

    architecture: str = Field("vgg-mini", json_schema_extra=_flag("--model"))
    """Network: vgg-mini, vgg-a, vgg-a-lrn, vgg-b, vgg-c, vgg-d or vgg-e."""

    stages: tuple[tuple[Layer, ...], ...] | None = None
    """Custom convolutional stages, such as "32,32/64,64"."""

    hidden: tuple[int, ...] | None = None
    """Custom widths of the hidden fully connected layers, such as "128"."""

    width: float = Field(1.0, gt=0, le=16)
    """Factor for the number of channels and hidden units; results are multiples of 8."""

    batch_norm: bool = False
    """Batch norm after each convolution; folded into it when the model is saved."""

    dropout: Fraction = 0.5
    """Dropout probability of the hidden layers."""

    initialization: Literal["torch", "he"] = "torch"
    """Initial weights: PyTorch's default, or He (normal, variance 2/fan-in, zero biases)."""

    in_channels: int = Field(1, ge=1, le=64, json_schema_extra=_flag())
    """Channels of an image; taken from the dataset."""

    num_classes: int = Field(10, ge=1, le=100_000, json_schema_extra=_flag())
    """Number of classes; taken from the dataset."""

    image_size: int = Field(28, ge=1, le=1024, json_schema_extra=_flag())
    """Height and width of the network's input in pixels; taken from the dataset."""

    @field_validator("architecture")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in (*ARCHITECTURES, "custom"):
            raise ValueError(f"unknown model {name!r}; {suggest(name, ARCHITECTURES)}")
        return name

    @field_validator("stages", mode="before")
    @classmethod
    def _read_stages(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(map(read_layers, value.split("/")))
        if isinstance(value, list):  # from JSON
            return tuple(tuple(stage) if isinstance(stage, list) else stage for stage in value)
        return value

    @field_validator("hidden", mode="before")
    @classmethod
    def _read_hidden(cls, value: object) -> object:
        if isinstance(value, str):
            return read_layers(value) if value else ()
        return tuple(value) if isinstance(value, list) else value

    @field_validator("hidden")
    @classmethod
    def _valid_widths(cls, hidden: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if hidden and not 1 <= min(hidden) <= max(hidden) <= MAX_WIDTH:
            raise ValueError(f"every width must be at least 1 and at most {MAX_WIDTH}")
        return hidden

    @model_validator(mode="after")
    def _valid_stages(self) -> Self:
        if self.architecture == "custom" and (self.stages is None or self.hidden is None):
            raise ValueError("a custom model needs both stages and hidden")
        check_stages(self.layers.stages)
        return self

    @property
    def layers(self) -> Architecture:
        """The row of the table, or `stages` and `hidden`, with `width` applied."""
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
        """The architecture, or "custom" with other layers, and the width unless it is 1."""
        own = self._row == ARCHITECTURES.get(self.architecture)
        times = f" × {self.width:g}" if self.width != 1 else ""
        return f"{self.architecture if own else 'custom'}{times}"

    @property
    def depth(self) -> int:
        """Number of layers with weights, as in the paper: 11 in A, 19 in E."""
        convolutions = [layer for stage in self.layers.stages for layer in stage if layer != "lrn"]
        return len(convolutions) + len(self.layers.hidden) + 1

    @property
    def downsampling(self) -> int:
        """Input size divided by the size of the last feature map."""
        return int(2 ** len(self.layers.stages))


class DataConfig(_Section):
    """The images, where they are, and how their pixels are scaled."""

    dataset: str = "mnist"
    """Dataset: a name from `vggnet data list`, or a folder of your own images."""

    data_dir: Path | None = None
    """Folder or file that holds the dataset: in torchvision's layout, or as a table or archive."""

    download: bool = True
    """Download the dataset if it is not on this machine."""

    image_size: int | None = Field(None, ge=8, le=1024)
    """Height and width to resize your own images to; default: their size up to 64, else 32."""

    skip_bad: bool = False
    """Skip images that cannot be read instead of stopping."""

    common_classes: bool = False
    """Skip classes that are not in both the training and the test split."""

    class_folders: Literal["outer", "inner"] | None = None
    """Which folders are the classes if all contain the same subfolders: outer or inner."""

    bit_depth: int | None = Field(None, ge=1, le=16)
    """Bits per value of 16-bit images; default: what the dataset's largest value needs."""

    cache: bool | None = None
    """Keep decoded images on disk instead of in memory; default: if they take over 1 GiB."""

    validation_size: int | None = Field(None, ge=0)
    """Number of training images to hold out for validation after each epoch; default: a tenth of
    each class of your own images, if they have no validation split."""

    calibration_size: int = Field(0, ge=0)
    """Number of training images to hold out for calibrating the probabilities, at most a tenth of
    all; not used with validation images or if the run takes less than one epoch."""

    mean: tuple[float, ...] = Field((0.5,), min_length=1)
    """Mean to subtract from pixels in [0, 1]: one value or one per channel, such as 0.5,0.4,0.4."""

    std: tuple[Annotated[float, Field(gt=0)], ...] = Field((0.5,), min_length=1)
    """Standard deviation to divide by; mean 0.5 and std 0.5 give [-1, 1], as in the article."""

    @field_validator("mean", "std", mode="before")
    @classmethod
    def _read_channels(cls, value: object) -> object:
        value = value.split(",") if isinstance(value, str) else value
        return tuple(value) if isinstance(value, list) else value  # a list from JSON


class AugmentConfig(_Section):
    """Random changes to each training image, drawn anew in every epoch."""

    rotation: float = Field(0.0, ge=0, le=180)
    """Maximum rotation in degrees."""

    shift: float = Field(0.0, ge=0, le=1024)
    """Maximum shift in pixels, horizontally and vertically."""

    scale: Fraction = 0.0
    """Maximum change of size: 0.1 scales by 0.9 to 1.1."""

    shear: float = Field(0.0, ge=0, le=60)
    """Maximum horizontal shear in degrees."""

    flip: bool = False
    """Flip half of the images horizontally; suits clothes, not digits."""

    @property
    def is_active(self) -> bool:
        """Whether any change is requested."""
        return self != AugmentConfig()


class TrainConfig(_Section):
    """Optimizer, schedule, duration and hardware."""

    init: str | None = None
    """Start from the weights of this model file, or of any VGG's file; imagenet: torchvision's
    weights for --model."""

    freeze: Annotated[int, Field(ge=0, le=1000)] | Literal["features"] = 0
    """Layers, counted from the input, that keep their initial weights; features: all
    convolutions."""

    init_lr: float = Field(1.0, gt=0, le=1)
    """Factor for the learning rate of layers whose weights come from --init."""

    epochs: float = Field(10, gt=0, le=100_000)
    """Passes over the training images; may be a fraction."""

    min_steps: int = Field(0, ge=0, le=10_000_000)
    """Minimum number of optimizer steps, which small datasets reach with more epochs; default: 0
    if --epochs is given, else the recipe's."""

    minutes: float | None = Field(None, gt=0, le=100_000)
    """Training time in minutes, instead of --epochs; the schedule ends with it."""

    global_batch_size: int = Field(
        128, ge=1, le=1_000_000, json_schema_extra=_flag("--batch-size", "-b")
    )
    """Images per optimizer step, over all processes."""

    optimizer: Literal["adam", "adamw", "muon"] = Field("adam", json_schema_extra=_flag("--opt"))
    """Optimizer; muon trains convolutions of up to 128 channels and wide hidden layers, and AdamW
    the rest."""

    peak_lr: float = Field(1e-3, gt=0, le=10, json_schema_extra=_flag("--lr"))
    """Maximum learning rate."""

    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    """Adam's beta1 and beta2: decay rates of the averages of the gradient and of its square."""

    weight_decay: float = Field(0.0, ge=0)
    """Weight decay; decoupled with adamw and muon."""

    schedule: Literal["constant", "linear"] = Field("constant", json_schema_extra=_flag("--sched"))
    """Learning rate: constant, or linear warm-up followed by linear decay to zero."""

    warmup_fraction: Fraction = 0.0
    """Fraction of steps used for linear warm-up."""

    growth_fraction: Fraction = 0.0
    """Fraction of steps in which training images grow from half their height and width; 0.75 in the
    recipe fast on MNIST."""

    average_decay: Fraction = 0.0
    """EMA decay of the weights; 0 disables averaging."""

    label_smoothing: Fraction = Field(0.0, json_schema_extra=_flag("--smoothing"))
    """Label smoothing."""

    class_weights: Literal["none", "balanced"] = "none"
    """Class weights in the loss; balanced: inversely proportional to the number of images."""

    patience: int | None = Field(None, ge=1)
    """Stop after this many epochs without a lower validation loss."""

    keep: Literal["last", "best"] = "last"
    """Weights to save: of the last epoch, or of the epoch with the lowest validation loss."""

    seed: int = Field(0, ge=0, lt=2**63)
    """Seed of the initial weights, the order of the images, augmentation and dropout."""

    device: str = "auto"
    """auto, cpu, cuda, cuda:N, mps, xpu or xpu:N; auto prefers a GPU."""

    precision: Literal["fp32", "tf32", "bf16", "fp16"] = "fp32"
    """Number format of convolutions and matrix products."""

    threads: int | None = Field(None, ge=1, le=4096)
    """CPU threads; default: the usable cores."""

    kernels: Literal["auto", "winograd", "torch"] = "auto"
    """3x3 convolutions on the CPU: auto (compiled kernels if available), winograd or torch."""

    @field_validator("freeze", mode="before")
    @classmethod
    def _read_freeze(cls, value: object) -> object:
        if isinstance(value, str) and value != "features":
            if not value.isdecimal():
                raise ValueError(f"must be a number of layers or features, not {value!r}")
            return int(value)
        return value

    @field_validator("device")
    @classmethod
    def _valid_device(cls, device: str) -> str:
        if not re.fullmatch(r"auto|cpu|mps|(cuda|xpu)(:[0-9]{1,4})?", device):
            raise ValueError(f"unknown device {device!r}; use auto, cpu, cuda, cuda:1, mps or xpu")
        return device


class Config(_Section):
    """Everything that decides the result of a run.

    Examples:
        >>> vggnet.Config(train={"epochs": 2, "seed": 1})
        Config(recipe='fast', epochs=2.0, seed=1)
    """

    recipe: str = "fast"
    """Name of the recipe that the other values started from."""

    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    augment: AugmentConfig = AugmentConfig()
    train: TrainConfig = TrainConfig()

    def __repr__(self) -> str:
        changed = "".join(f", {name}={one!r}" for name, one in _changes(self).items())
        return f"Config(recipe={self.recipe!r}{changed})"

    __str__ = __repr__


SECTIONS: dict[str, type[_Section]] = {
    "model": ModelConfig,
    "data": DataConfig,
    "augment": AugmentConfig,
    "train": TrainConfig,
}


def spell_flag(name: str, field: Any) -> list[str]:
    """Return all names of a field's command-line flag, such as --batch-size and -b; or none."""
    extra = field.json_schema_extra or {}
    flag = name.replace("_", "-")
    if bool in (field.annotation, *get_args(field.annotation)):
        return [f"--{flag}/--no-{flag}"]
    spelling: list[str] = extra.get("flag", [f"--{flag}"])
    return spelling


def list_keywords() -> dict[str, tuple[str, str]]:
    """Return section and field of each setting by its flag as a keyword, such as `batch_size`."""
    return {
        spelling[0].partition("/")[0].lstrip("-").replace("-", "_"): (section, name)
        for section, fields in SECTIONS.items()
        for name, field in fields.model_fields.items()
        if (spelling := spell_flag(name, field))
    }


def flatten(config: Config) -> dict[str, Any]:
    """Return all settings by dotted name, such as "train.epochs", as plain values for JSON."""
    values = config.model_dump(mode="json")
    for section in SECTIONS:
        values |= {f"{section}.{name}": value for name, value in values.pop(section).items()}
    return values


def _changes(config: Config) -> dict[str, Any]:
    """Return the settings that are not the defaults, by keyword."""
    values, defaults = flatten(config), flatten(Config())
    return {
        keyword: values[name]
        for keyword, place in list_keywords().items()
        if values[name := ".".join(place)] != defaults[name]
    }


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


def suggest(name: str, known: Iterable[object]) -> str:
    """Suggest the most similar valid name, or list all if none is similar."""
    names = [str(one) for one in known]
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"use one of: {', '.join(names)}"
