"""A network as data for the engine in JavaScript: layers, and weights in 8 or 16 bits."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from vggnet.artifacts.export.program import EndToEndModel
from vggnet.artifacts.export.quantize import quantize_rows
from vggnet.model.vgg import VGG


def build_payload(model: EndToEndModel, drawn: bool, bits: int) -> dict[str, Any]:
    """Describe a network for `network.js`.

    Args:
        model: The network, with batch norm folded, and its description.
        drawn: Whether its images are characters, redrawn in MNIST's style.
        bits: Of a weight, 8 or 16. Each output has a scale of its own.

    Returns:
        What `Network` in `network.js` takes, ready for JSON.
    """
    calibration = model.card.calibration
    weights, scales = [], []
    for layer in weighted_layers(model.network):
        whole, scale = quantize_rows(layer.weight.detach().flatten(1).numpy(), bits)
        bias = _bias(layer).numpy()
        weights.append(whole.ravel())
        scales.append(np.stack([scale, bias], axis=1).astype(np.float32).ravel())
    return {
        "name": model.network.config.name,
        "classes": model.card.classes,
        "shape": model.card.image_shape,
        "side": model.network.config.image_size,
        "mean": model.card.mean,
        "std": model.card.std,
        "drawn": drawn,
        "calibration": calibration and calibration.model_dump(),
        "bits": bits,
        "layers": list(_layers(model.network)),
        "weights": _encode(np.concatenate(weights)),
        "scales": _encode(np.concatenate(scales)),
    }


def count_products(network: VGG) -> int:
    """Return the multiplications for one image."""
    side, count = network.config.image_size, 0
    for module in [*network.features, *network.classifier]:
        if isinstance(module, nn.Conv2d):
            count += module.weight.numel() * side * side
        elif isinstance(module, nn.MaxPool2d):
            side //= 2
        elif isinstance(module, nn.Linear):
            count += module.weight.numel()
    return count


def weighted_layers(network: VGG) -> list[nn.Conv2d | nn.Linear]:
    """Return the convolutions and fully connected layers, in the network's order."""
    return [one for one in network.modules() if isinstance(one, nn.Conv2d | nn.Linear)]


def _bias(layer: nn.Conv2d | nn.Linear) -> Tensor:
    assert layer.bias is not None
    return layer.bias.detach()


def _encode(values: npt.NDArray[Any]) -> str:
    little_endian = values.astype(values.dtype.newbyteorder("<"))
    return b64encode(little_endian.tobytes()).decode()


def _layers(network: VGG) -> Iterator[dict[str, Any]]:
    """Yield the layers as the engine runs them: each convolution with its ReLU.

    The network pools before the ReLU, which gives the same values.
    """
    stage, position = 1, 0
    for module in network.features:
        if isinstance(module, nn.Conv2d):
            position += 1
            yield {
                "kind": "convolution",
                "name": f"{stage}.{position}",
                "kernel": module.kernel_size[0],
                "outputs": module.out_channels,
            }
        elif isinstance(module, nn.LocalResponseNorm):
            yield {"kind": "normalization", "name": f"{stage}"}
        elif isinstance(module, nn.MaxPool2d):
            yield {"kind": "pool", "name": f"{stage}"}
            stage, position = stage + 1, 0
    linears = [one for one in network.classifier if isinstance(one, nn.Linear)]
    for linear in linears:
        yield {
            "kind": "linear",
            "outputs": linear.out_features,
            "relu": linear is not linears[-1],
        }
