"""Weights and what they mean, as `.pth` or `.safetensors`; loading never runs code.

A `.pth` is a plain `state_dict`, as the article's script saves it and its class loads
it. What the weights mean (configuration, classes, normalization) goes along in the
`state_dict`'s own `_metadata`, which PyTorch saves, restores, and otherwise ignores;
a `.safetensors` carries it in its header.
"""

from __future__ import annotations

import io
import json
import pickle
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as save_safetensors
from torch import Tensor

from vggnet.artifacts.atomic import write_file
from vggnet.config import Config
from vggnet.data.preprocessing import Preprocessing
from vggnet.errors import ConfigError, ModelFileError
from vggnet.model.infer import infer_config
from vggnet.model.vgg import VGG

SUFFIXES = (".pth", ".pt", ".safetensors")

_KEY = "vggnet"


class ModelCard(BaseModel):
    """What a model file says of its weights."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    format: int = 1
    """Version of this description; a reader refuses a newer one."""
    classes: tuple[str, ...]
    """What class 0, 1, … is called."""
    image_shape: tuple[int, int, int] = Field(alias="picture")  # the name in files since 0.1
    """Channels, height and width of an image before it is padded to the network's size."""
    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.5,)
    config: dict[str, Any] | None = None
    """The whole configuration of the training, where it is known."""
    dataset_sha256: str | None = None
    environment: dict[str, Any] | None = None
    test: dict[str, float] | None = None
    """Accuracy (0 to 1), loss and count on the test set, read at the end of training."""

    def without_paths(self) -> Self:
        """Leave out where the data lie: a file that is given away shall not tell."""
        data = (self.config or {}).get("data")
        if self.config is None or data is None:
            return self
        shown = {**data, "data_dir": None, "dataset": Path(data.get("dataset", "mnist")).name}
        return self.model_copy(update={"config": {**self.config, "data": shown}})

    @model_validator(mode="after")
    def _of_this_version(self) -> Self:
        if self.format != 1:
            raise ValueError(f"format {self.format} is newer than this vggnet reads (1)")
        return self


class LoadedModel(BaseModel):
    """A network and its description."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    network: VGG
    card: ModelCard

    @property
    def preprocessing(self) -> Preprocessing:
        """How stored pixels become this network's input."""
        return Preprocessing(self.card.mean, self.card.std, self.network.config.image_size)


def check_suffix(path: Path) -> None:
    """Refuse a file name whose ending says no format.

    Raises:
        ConfigError: Naming the endings there are.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"{path}: a model file ends with {', '.join(SUFFIXES)}")


def build_card(
    config: Config,
    classes: tuple[str, ...],
    image_shape: tuple[int, int, int],
    dataset_sha256: str,
    environment: Mapping[str, Any],
    test: dict[str, float] | None,
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
        test=test,
    )


def save_model(path: Path, network: VGG, card: ModelCard) -> None:
    """Write a network, in the format that the file's ending says.

    Raises:
        OutputError: It cannot be written; what stood there is untouched.
    """
    state = network.state_dict()
    text = card.model_dump_json(by_alias=True)
    if path.suffix.lower() == ".safetensors":
        tensors = {name: tensor.cpu().contiguous() for name, tensor in state.items()}
        write_file(path, save_safetensors(tensors, {"format": "pt", _KEY: text}))
        return
    plain: OrderedDict[str, Tensor] = OrderedDict(
        (name, tensor.cpu().contiguous()) for name, tensor in state.items()
    )
    plain._metadata = OrderedDict(state._metadata)  # type: ignore[attr-defined]
    plain._metadata[""] = {**plain._metadata[""], _KEY: text}  # type: ignore[attr-defined]
    # In memory first: torch's own writer crashes the process when the disk fills up.
    buffer = io.BytesIO()
    torch.save(plain, buffer)
    write_file(path, buffer.getvalue())


def load_model(path: Path) -> LoadedModel:
    """Read a model file of ours, or one that the article's script saved.

    The architecture is read off the shapes of the tensors. A file without a
    description takes the article's: digits, pixels scaled to [-1, 1].

    Raises:
        ModelFileError: It is missing, damaged, not a VGG network, or would run code.
    """
    try:
        tensors, text = _read(path)
        config = infer_config({name: tuple(tensor.shape) for name, tensor in tensors.items()})
        with torch.random.fork_rng(devices=[]):  # initial weights are drawn, for nothing
            network = VGG(config)
        network.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
        card = _read_card(text, network)
    except ModelFileError as error:
        raise ModelFileError(f"{path}: {error}") from None
    except (RuntimeError, ConfigError) as error:
        reason = " ".join(str(error).split())
        raise ModelFileError(f"{path} does not hold a whole VGG network: {reason}") from None
    return LoadedModel(network=network.eval(), card=card)


def _read(path: Path) -> tuple[dict[str, Tensor], str | None]:
    """Return the tensors of a file and its description."""
    try:
        with path.open("rb") as file:
            head = file.read(9)
    except FileNotFoundError:
        raise ModelFileError("there is no such file; train one: vggnet train") from None
    except OSError as error:
        raise ModelFileError(f"cannot be read: {error.strerror}") from None
    if head[8:9] == b"{":
        return _read_safetensors(path)
    if head[:2] in (b"PK", b"\x80\x02"):
        return _read_torch(path)
    raise ModelFileError("is no model file: neither PyTorch's format nor safetensors")


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], str | None]:
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return tensors, (file.metadata() or {}).get(_KEY)
    except SafetensorError as error:
        raise ModelFileError(f"is a damaged safetensors file ({error})") from None


def _read_torch(path: Path) -> tuple[dict[str, Tensor], str | None]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ModelFileError(
            "holds more than tensors, and loading it could run code; refused. "
            "Save the model's state_dict() instead"
        ) from None
    except Exception as error:  # a damaged pickle is a program gone wrong, and may raise anything
        reason = str(error).split("\n")[0]
        raise ModelFileError(f"is a damaged PyTorch file ({reason})") from None
    if not isinstance(state, dict) or not all(isinstance(t, Tensor) for t in state.values()):
        raise ModelFileError("holds no state_dict; save the model's state_dict()")
    metadata = getattr(state, "_metadata", {})
    text = metadata.get("", {}).get(_KEY) if isinstance(metadata, dict) else None
    return {str(name): tensor for name, tensor in state.items()}, text


def _read_card(text: str | None, network: VGG) -> ModelCard:
    config = network.config
    if text is None:
        size = 28 if config.image_size == 32 else config.image_size
        return ModelCard(
            classes=tuple(str(number) for number in range(config.num_classes)),
            image_shape=(config.in_channels, size, size),
        )
    try:
        card = ModelCard.model_validate(json.loads(text))
    except (ValidationError, ValueError, TypeError) as error:
        raise ModelFileError(f"its description is not valid: {error}") from None
    if len(card.classes) != config.num_classes or card.image_shape[0] != config.in_channels:
        raise ModelFileError(
            f"its description ({len(card.classes)} classes, {card.image_shape[0]} channels) is not "
            f"that of its tensors ({config.num_classes} and {config.in_channels})"
        )
    return card
