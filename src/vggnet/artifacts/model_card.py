"""What a model file says of its weights: classes, normalization, training; always validated."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import to_json

from vggnet.config import Config, ModelConfig
from vggnet.data.matching import TrainedOn
from vggnet.engine.calibration import Calibration
from vggnet.engine.typicality import Typicality
from vggnet.errors import ModelFileError
from vggnet.model.vgg import padded_size

ClassName = Annotated[str, Field(max_length=1_000)]
Side = Annotated[int, Field(ge=1, le=1024)]


def _check_plain(values: dict[str, Any]) -> dict[str, Any]:
    """Refuse what cannot be written again as JSON: NaN, lone surrogates, hundreds of levels."""
    to_json(values)  # has a limit of levels, so it comes first
    json.dumps(values, allow_nan=False)
    return values


Plain = Annotated[dict[str, Any], AfterValidator(_check_plain)]


class _Record(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(
        frozen=True, extra="ignore", allow_inf_nan=False, populate_by_name=True
    )


class RecordedData(_Record):
    """The images that a model was trained on, as far as its file says; see `DataConfig`."""

    dataset: str | None = Field(None, min_length=1, max_length=4_096, pattern=r"^[^\x00]*$")
    image_size: Side | None = None
    skip_bad: bool = False
    common_classes: bool = False
    class_folders: Literal["outer", "inner"] | None = None
    bit_depth: Annotated[int, Field(ge=1, le=16)] | None = None
    """Bits of 16-bit images that count as their full range."""


class ModelCard(_Record):
    """The description that a model file carries beside its weights."""

    format: int = 1
    """Version of this description; newer ones are refused."""
    classes: tuple[ClassName, ...] = Field(min_length=1, max_length=100_000)
    """Names, in the order of the network's outputs."""
    image_shape: tuple[Annotated[int, Field(ge=1, le=64)], Side, Side] = Field(alias="picture")
    """Channels, height and width of an image, before it is padded to the network's size.
    Files call it "picture", as version 0.1 did."""
    mean: tuple[float, ...] = Field((0.5,), min_length=1)
    """Subtracted from pixels in [0, 1]; one value, or one per channel."""
    std: tuple[Annotated[float, Field(gt=0)], ...] = Field((0.5,), min_length=1)
    """Divides the difference."""
    config: Plain | None = None
    """The configuration of the training, if known."""
    dataset_sha256: str | None = None
    environment: Plain | None = None
    init: dict[str, str] | None = None
    """Name and SHA-256 of the model file that training started from."""
    test: dict[str, float] | None = None
    """Accuracy (0 to 1), loss and count on the test set, measured once, after training."""
    calibration: Calibration | None = None
    """How logits become probabilities; None: a plain softmax."""
    typicality: Typicality | None = None
    """Statistics of the training images, to tell others from them."""

    def __repr__(self) -> str:
        shape = "×".join(map(str, self.image_shape))
        return f"ModelCard({len(self.classes):,} classes, {shape} images, {self.data.dataset})"

    __str__ = __repr__

    @property
    def data(self) -> RecordedData:
        """The images of the training."""
        return RecordedData.model_validate((self.config or {}).get("data", {}))

    @property
    def trained_on(self) -> TrainedOn:
        """What the model was trained on, as far as its file says."""
        return TrainedOn(
            self.classes,
            self.image_shape,
            self.data.dataset,
            self.dataset_sha256,
            self.data.bit_depth,
            self.data.class_folders,
        )

    def without_paths(self) -> Self:
        """Remove the paths of the training data, for a file that is given away."""
        if self.config is None or self.data.dataset is None:
            return self
        shown = {
            **self.config["data"],
            "data_dir": None,
            "dataset": Path(self.data.dataset).name,
        }
        config = {**self.config, "data": shown}
        train = config.get("train")
        if isinstance(train, dict) and train.get("init"):
            config["train"] = {**train, "init": Path(str(train["init"])).name}
        return self.model_copy(update={"config": config})

    @field_validator("classes")
    @classmethod
    def _distinct(cls, classes: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(classes)) < len(classes):
            twice, _ = Counter(classes).most_common(1)[0]
            raise ValueError(f"two classes have the same name, {twice[:100]!r}")
        return classes

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.format != 1:
            raise ValueError(f"format {self.format} is newer than this vggnet reads (1)")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, self.image_shape[0]):
                raise ValueError(
                    f"{name} has {len(values)} values for {self.image_shape[0]} channels"
                )
        _ = self.data
        return self


def build_card(
    config: Config,
    classes: tuple[str, ...],
    image_shape: tuple[int, int, int],
    dataset_sha256: str,
    environment: Mapping[str, Any],
    test: dict[str, float] | None,
    calibration: Calibration | None = None,
    typicality: Typicality | None = None,
    init: dict[str, str] | None = None,
) -> ModelCard:
    """Describe a network that was trained under `config`."""
    return ModelCard(
        classes=classes,
        image_shape=image_shape,
        mean=config.data.mean,
        std=config.data.std,
        config=config.model_dump(mode="json"),
        dataset_sha256=dataset_sha256,
        environment=dict(environment),
        init=init,
        test=test,
        calibration=calibration,
        typicality=typicality,
    )


def read_card(text: object) -> ModelCard:
    """Parse a description, JSON.

    Raises:
        ModelFileError: It is not valid.
    """
    try:
        return validate_card(json.loads(text))  # type: ignore[arg-type]
    except (ValueError, TypeError, RecursionError) as error:
        raise ModelFileError(f"its description is not valid JSON: {error}") from None


def validate_card(values: object) -> ModelCard:
    """Check a description's values.

    Raises:
        ModelFileError: One is not valid.
    """
    try:
        return ModelCard.model_validate(values)
    except ValidationError as error:
        problems = [
            ": ".join([*(".".join(map(str, one["loc"])) for _ in one["loc"][:1]), one["msg"]])
            for one in error.errors(include_input=False, include_url=False)[:3]
        ]
        text = "; ".join(problems).replace("Value error, ", "")
        raise ModelFileError(f"its description is not valid: {text}") from None


def check_fits(card: ModelCard, network: ModelConfig) -> None:
    """Compare a description with the network that it describes.

    Raises:
        ModelFileError: They do not belong together.
    """
    channels, *sides = card.image_shape
    facts = {
        "classes": (len(card.classes), network.num_classes),
        "channels": (channels, network.in_channels),
        "pixels per side after padding": (padded_size(network, max(sides)), network.image_size),
    }
    wrong = [
        f"{described} {name}, but its tensors are for {actual}"
        for name, (described, actual) in facts.items()
        if described != actual
    ]
    if wrong:
        raise ModelFileError(f"its description says {' and '.join(wrong)}")
    if card.typicality and not card.typicality.fits(network):
        raise ModelFileError("its description has statistics of another network")
