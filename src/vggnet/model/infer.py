"""Infer the architecture of a VGG from the names and shapes of its tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping

from vggnet.architectures import ARCHITECTURES, Architecture, Layer
from vggnet.config import ModelConfig
from vggnet.errors import ConfigError, ModelFileError
from vggnet.recipes import build_config

Shape = tuple[int, ...]


def infer_config(shapes: Mapping[str, Shape]) -> ModelConfig:
    """Return the configuration of the network that has exactly these parameters.

    Args:
        shapes: Shape of each tensor under torchvision's name.

    Raises:
        ModelFileError: They are not the parameters of a VGG for square images.
    """
    convolutions = _weights(shapes, "features", 4)
    linears = _weights(shapes, "classifier", 2)
    if not convolutions or not linears:
        parts = {"features.N.weight": convolutions, "classifier.N.weight": linears}
        missing = [name for name, found in parts.items() if not found]
        raise ModelFileError(
            f"its tensors are not those of a VGG: none is named {' or '.join(missing)}; "
            f"the first are {', '.join(list(shapes)[:3]) or 'none'}"
        )
    batch_norm = any(name.endswith("running_mean") for name in shapes)
    stages = _stages(convolutions, batch_norm)
    hidden = tuple(shape[0] for _, shape in linears[:-1])
    row = Architecture(stages, hidden)
    name = next((name for name, known in ARCHITECTURES.items() if known == row), "custom")
    values = {
        "architecture": name,
        "batch_norm": batch_norm,
        "in_channels": convolutions[0][1][1],
        "num_classes": linears[-1][1][0],
        "image_size": _map_side(linears[0][1][1], convolutions[-1][1][0]) * 2 ** len(stages),
    }
    if name == "custom":
        values |= {"stages": stages, "hidden": hidden}
    try:
        return build_config({"model": values}).model
    except ConfigError as error:
        raise ModelFileError(f"its tensors do not form a network: {error}") from None


def _weights(shapes: Mapping[str, Shape], part: str, dimensions: int) -> list[tuple[int, Shape]]:
    """Return (index, shape) of the weight of each layer in `part`, in the network's order."""
    found = []
    for name, shape in shapes.items():
        pieces = name.split(".")
        is_weight = pieces[0] == part and pieces[2:] == ["weight"] and pieces[1].isdecimal()
        if is_weight and len(shape) == dimensions and min(shape) > 0:
            found.append((int(pieces[1]), shape))
    return sorted(found)


def _map_side(inputs: int, channels: int) -> int:
    """Return the height and width of the last feature map, which the classifier takes."""
    pixels, rest = divmod(inputs, channels)
    side = math.isqrt(pixels)
    if rest or side * side != pixels:
        raise ModelFileError(
            f"its first fully connected layer takes {inputs:,} values, which is not a square "
            f"feature map of {channels} channels; vggnet supports square images only"
        )
    return side


def _stages(
    convolutions: list[tuple[int, Shape]], batch_norm: bool
) -> tuple[tuple[Layer, ...], ...]:
    """Group convolutions by the gaps that pools and response norms leave in the numbering."""
    stages: list[list[Layer]] = [[]]
    own = 3 if batch_norm else 2
    for (index, shape), following in zip(convolutions, [*convolutions[1:], None], strict=True):
        if shape[-2:] not in ((1, 1), (3, 3)):
            size = "×".join(map(str, shape[-2:]))
            raise ModelFileError(f"features.{index} is a {size} convolution; a VGG has 3×3 and 1×1")
        stages[-1].append(shape[0] if shape[-1] == 3 else f"conv1-{shape[0]}")
        if following is None:
            break
        match following[0] - index - own:
            case 0:
                pass
            case 1:
                stages.append([])
            case 2:
                stages[-1].append("lrn")
                stages.append([])
            case _:
                raise ModelFileError(
                    f"features.{index} and features.{following[0]} are convolutions, and the "
                    "layers that a VGG has between two do not fill the numbers between them"
                )
    return tuple(tuple(stage) for stage in stages)
