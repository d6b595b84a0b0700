"""Model files: weights and their description, as `.pth` or `.safetensors`.

A `.pth` file is a plain `state_dict`, as the article's script saves it and its class loads
it. The description is in the `_metadata` of the `state_dict`, which PyTorch saves, restores
and otherwise ignores; a `.safetensors` file has it in its header. Weights that other
projects saved have no description; what it would say is assumed, and logged.
"""

from __future__ import annotations

import io
import logging
import os
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as save_safetensors
from torch import Tensor

from vggnet.artifacts.atomic import write_file
from vggnet.artifacts.model_card import ModelCard, check_fits, read_card, validate_card
from vggnet.artifacts.tensor_file import find_hub_weights, read_hub_config, read_tensors
from vggnet.config import ModelConfig
from vggnet.data.memory import available_bytes
from vggnet.data.preprocessing import Preprocessing
from vggnet.errors import ConfigError, ModelFileError
from vggnet.model.infer import infer_config
from vggnet.model.vgg import VGG, padded_size
from vggnet.model.weights import find_state_dict, to_torchvision

SUFFIXES = (".pth", ".pt", ".safetensors")

_KEY = "vggnet"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Overrides:
    """What the user says of a model, in place of what its file says or does not say."""

    mean: tuple[float, ...] | None = None
    """Of pixels in [0, 1]; one value, or one per channel."""
    std: tuple[float, ...] | None = None
    image_size: int | None = None
    """Height and width of an image, before it is padded to the network's size."""
    classes: tuple[str, ...] | None = None


@dataclass(frozen=True)
class LoadedModel:
    """A network and its description."""

    network: VGG
    card: ModelCard

    @property
    def preprocessing(self) -> Preprocessing:
        """How stored pixels become this network's input."""
        return Preprocessing(self.card.mean, self.card.std, self.network.config.image_size)


def check_suffix(path: Path) -> None:
    """Refuse a file name from which no format follows.

    Raises:
        ConfigError: Its suffix is none of `SUFFIXES`.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"{path}: the name of a model file must end with {', '.join(SUFFIXES)}")


def save_model(path: Path, network: VGG, card: ModelCard) -> None:
    """Write a network, in the format that the suffix of `path` names.

    Raises:
        OutputError: The file cannot be written; an existing file is unchanged.
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
    # In memory first: torch's own writer crashes the process when the disk is full.
    buffer = io.BytesIO()
    torch.save(plain, buffer)
    write_file(path, buffer.getvalue())


def load_model(path: Path, overrides: Overrides | None = None) -> LoadedModel:
    """Load a VGG: vggnet's own file, or the weights that another project saved.

    The architecture follows from the shapes of the tensors. What the file does not say
    (normalization, image size, class names) is assumed, and logged with the option that
    overrides it.

    Args:
        path: A file, or a folder of Hugging Face's Hub.
        overrides: What to take in place of the file's description.

    Raises:
        ModelFileError: The file is missing, damaged, not a VGG, or needs code to load.
        ConfigError: An override does not fit the network.
    """
    overrides = overrides or Overrides()
    try:
        is_folder = os.path.isdir(path)  # noqa: PTH112 (Path.is_dir raises for a long name)
        state = find_state_dict(read_tensors(find_hub_weights(path) if is_folder else path))
        tensors = to_torchvision(state)
        text = _read_description(state)
        card = None if text is None else read_card(text)
        network = _build(tensors, card)
        _log_conversion(path, tensors)
        if card is None:
            hub = read_hub_config(path) if is_folder else {}
            card = _assume_card(path, network.config, hub, overrides)
        check_fits(card, network.config)
    except ModelFileError as error:
        raise ModelFileError(f"{path}: {error}") from None
    return LoadedModel(network.eval(), _override(card, overrides, network.config))


def is_own_file(path: Path) -> bool:
    """Return whether vggnet wrote a model file, or the hub folder around it."""
    try:
        return _read_description(find_state_dict(read_tensors(path))) is not None
    except ModelFileError:
        return False


def _read_description(state: Mapping[Any, Any]) -> object:
    metadata = getattr(state, "_metadata", None)
    own = metadata.get("") if isinstance(metadata, dict) else None
    return own.get(_KEY) if isinstance(own, dict) else None


def _build(tensors: dict[str, Tensor], card: ModelCard | None) -> VGG:
    """Build the network that has exactly these parameters."""
    config = infer_config({name: tuple(tensor.shape) for name, tensor in tensors.items()})
    _check_norms(config, card)
    needed, free = 4 * sum(tensor.numel() for tensor in tensors.values()), available_bytes()
    if free is not None and needed > free:
        raise ModelFileError(
            f"its tensors take {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB of memory are free"
        )
    with torch.device("meta"):
        network = VGG(config)
    # Copied: the tensors are views of the file, which may be replaced or removed.
    copies = {name: tensor.to(torch.float32, copy=True) for name, tensor in tensors.items()}
    try:
        network.load_state_dict(copies, assign=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ModelFileError(f"does not hold a complete VGG: {reason}") from None
    if broken := [name for name, tensor in copies.items() if not tensor.isfinite().all()]:
        raise ModelFileError(f"its tensor {broken[0]} contains NaN or infinity")
    return network


def _log_conversion(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Report numbers that are not stored as the network computes with them."""
    kinds = {str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values()} - {"float32"}
    if kinds:
        what = " and ".join(sorted(kinds))
        rounded = ", which rounds them" if "float64" in kinds else ""
        _log.warning("%s holds %s tensors; converted to float32%s", path, what, rounded)


def _check_norms(config: ModelConfig, card: ModelCard | None) -> None:
    """Refuse to guess what a layer without weights is, in a file without description.

    A-LRN has response normalization after its first convolution; elsewhere, a number left
    out is more likely dropout, and the wrong guess would change every prediction.
    """
    normalized = [number for number, stage in enumerate(config.layers.stages) if "lrn" in stage]
    if (
        card is None
        and normalized
        and (normalized != [0] or config.layers.stages[0][1:] != ("lrn",))
    ):
        raise ModelFileError(
            f"the numbers of its layers leave room for one without weights after stage "
            f"{normalized[-1] + 1}, dropout or response normalization, and vggnet cannot tell "
            "which; if it is dropout, renumber `features` without it and save again"
        )


def _assume_card(
    path: Path, network: ModelConfig, hub: Mapping[str, Any], overrides: Overrides
) -> ModelCard:
    """Describe weights that have no description, and log every assumption."""
    known = _read_hub_card(hub)
    channels, size = network.in_channels, network.image_size
    if channels == 1 and padded_size(network, 28) == size:
        size = 28  # as MNIST's images are
    assumed = []
    if overrides.image_size is None:
        assumed.append(f"images of {channels}×{size}×{size} (--image-size)")
    if "mean" not in known and None in (overrides.mean, overrides.std):
        assumed.append("pixels scaled to [-1, 1], as in the article (--mean, --std)")
    if "classes" not in known and overrides.classes is None:
        assumed.append(f"classes named 0 to {network.num_classes - 1} (--classes)")
    if any("lrn" in stage for stage in network.layers.stages):
        assumed.append("response normalization after the first convolution, as in vgg-a-lrn")
    if assumed:
        _log.warning("%s has no description of its weights; assuming %s", path, "; ".join(assumed))
    names = [str(number) for number in range(network.num_classes)]
    return validate_card({"classes": names, **known, "image_shape": (channels, size, size)})


def _read_hub_card(hub: Mapping[str, Any]) -> dict[str, Any]:
    """Return the normalization and class names in a Hub folder's config.json, timm's or ours."""
    values = {
        **hub,
        **(hub["pretrained_cfg"] if isinstance(hub.get("pretrained_cfg"), dict) else {}),
    }
    found: dict[str, Any] = {}
    mean, std = (values.get(key, values.get(f"image_{key}")) for key in ("mean", "std"))
    if mean is not None and std is not None:
        found |= {"mean": mean, "std": std}
    names = values.get("label_names")
    if isinstance(labels := values.get("id2label"), dict):
        names = [labels.get(str(number)) for number in range(len(labels))]
    if names is not None:
        found["classes"] = names
    return found


def _override(card: ModelCard, overrides: Overrides, network: ModelConfig) -> ModelCard:
    """Put the user's values in place of the description's.

    Raises:
        ConfigError: They do not fit the network.
    """
    values = {
        name: value
        for name in ("mean", "std", "classes")
        if (value := getattr(overrides, name)) is not None
    }
    if overrides.image_size is not None:
        values["image_shape"] = (card.image_shape[0], *[overrides.image_size] * 2)
    if not values:
        return card
    if (card.calibration or card.typicality) and values.keys() - {"classes"}:
        values |= {"calibration": None, "typicality": None}
        _log.warning(
            "with other inputs than in training, the probabilities are not calibrated and unusual "
            "images are not flagged"
        )
    try:
        changed = validate_card({**card.model_dump(), **values})
        check_fits(changed, network)
    except ModelFileError as error:
        raise ConfigError(str(error).replace("its description", "the given description")) from None
    return changed
