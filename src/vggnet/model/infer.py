"""The architecture of a VGG, read off the names and shapes of its tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping

from vggnet.architectures import ARCHITECTURES, Architecture, Layer
from vggnet.config import ModelConfig
from vggnet.errors import ConfigError, ModelFileError
from vggnet.recipes import build_config

Shapes = Mapping[str, tuple[int, ...]]


def infer_config(shapes: Shapes) -> ModelConfig:
    """Find the configuration whose network has exactly these parameters.

    Args:
        shapes: Name to shape, as in a `state_dict` with torchvision's names.

    Raises:
        ModelFileError: They are not those of a VGG network.
    """
    convolutions = _weights(shapes, "features", 4)
    linears = _weights(shapes, "classifier", 2)
    if not convolutions or not linears:
        raise ModelFileError(
            "its tensors are not those of a VGG network: "
            f"no convolutions features.N.weight and classifier.N.weight, but "
            f"{', '.join(list(shapes)[:3]) or 'nothing'}"
        )
    batch_norm = any(name.endswith("running_mean") for name in shapes)
    stages = _stages(convolutions, batch_norm)
    hidden = tuple(shape[0] for _, shape in linears[:-1])
    pixels, rest = divmod(linears[0][1][1], convolutions[-1][1][0])
    side = math.isqrt(pixels)
    if rest or side * side != pixels:
        raise ModelFileError(
            f"its first fully connected layer takes {linears[0][1][1]} values, which is "
            f"no square feature map of {convolutions[-1][1][0]} channels"
        )
    row = Architecture(stages, hidden)
    name = next((name for name, known in ARCHITECTURES.items() if known == row), "custom")
    values = {
        "architecture": name,
        "batch_norm": batch_norm,
        "in_channels": convolutions[0][1][1],
        "num_classes": linears[-1][1][0],
        "image_size": side * 2 ** len(stages),
    }
    if name == "custom":
        values |= {"stages": stages, "hidden": hidden}
    try:
        return build_config({"model": values}).model
    except ConfigError as error:
        raise ModelFileError(f"its tensors make no network: {error}") from None


def _weights(shapes: Shapes, part: str, dimensions: int) -> list[tuple[int, tuple[int, ...]]]:
    """Return (index, shape) of each layer's weight in `part`, in the network's order."""
    found = []
    for name, shape in shapes.items():
        pieces = name.split(".")
        is_weight = pieces[0] == part and pieces[2:] == ["weight"] and pieces[1].isdecimal()
        if is_weight and len(shape) == dimensions and min(shape) > 0:
            found.append((int(pieces[1]), shape))
    return sorted(found)


def _stages(
    convolutions: list[tuple[int, tuple[int, ...]]], batch_norm: bool
) -> tuple[tuple[Layer, ...], ...]:
    """Group convolutions by the gaps that pools and response norms leave in the numbering."""
    stages: list[list[Layer]] = [[]]
    own = 3 if batch_norm else 2
    for position, (index, shape) in enumerate(convolutions):
        kernel, width = shape[-1], shape[0]
        if shape[-2:] not in ((1, 1), (3, 3)):
            raise ModelFileError(f"features.{index} is no 3×3 or 1×1 convolution")
        stages[-1].append(width if kernel == 3 else f"conv1-{width}")
        if position + 1 < len(convolutions):
            match convolutions[position + 1][0] - index - own:
                case 0:
                    pass
                case 1:
                    stages.append([])
                case 2:
                    stages[-1].append("lrn")
                    stages.append([])
                case _:
                    raise ModelFileError(f"the layers after features.{index} are not VGG's")
    return tuple(tuple(stage) for stage in stages)
