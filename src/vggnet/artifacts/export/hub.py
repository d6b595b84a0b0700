"""A folder as Hugging Face's Hub expects it: weights, configuration, model card.

The card's head is YAML as https://huggingface.co/docs/hub/model-cards describes it; its
values are written as JSON, of which YAML is a superset.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vggnet import __version__
from vggnet.artifacts.export.program import ExportModule, Program, eager_program
from vggnet.artifacts.model_file import load_model, save_model
from vggnet.config import ModelConfig

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"

_LIBRARY = "vggnet"
_TASK = "image-classification"

_HUB_NAMES = {"mnist": "ylecun/mnist", "fashion-mnist": "zalando-datasets/fashion_mnist"}
"""What the Hub calls the datasets that it has."""


def is_ours(folder: Path) -> bool:
    """Whether an earlier export made this folder, so that another may replace its files."""
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and config.get("library_name") == _LIBRARY


def write_weights(path: Path, network: ExportModule) -> None:
    """Write the weights and their description, as `.safetensors`."""
    save_model(path, network.network, network.card)


def open_weights(path: Path, threads: int) -> Program:
    """Read a `.safetensors` back and run it in PyTorch."""
    return eager_program(ExportModule(load_model(path)))


def write_hub(folder: Path, network: ExportModule) -> None:
    """Write the folder and its three files; the figures in it are those of `network.card.test`."""
    folder.mkdir()
    write_weights(folder / WEIGHTS, network)
    config = json.dumps(_config(network), indent=2, ensure_ascii=False)
    (folder / CONFIG).write_text(config + "\n", encoding="utf-8")
    (folder / CARD).write_text(render_card(network), encoding="utf-8")


def open_hub(folder: Path, threads: int) -> Program:
    """Read a folder's weights back and run them in PyTorch."""
    return open_weights(folder / WEIGHTS, threads)


def weights_usage(path: Path, image_shape: tuple[int, int, int]) -> str:
    """Return Python that classifies one black image."""
    return f"""\
import numpy, vggnet
model = vggnet.load({str(path)!r})
print(model.predict(numpy.zeros({(1, *image_shape)}, "uint8")).classes)"""


def hub_usage(folder: Path, image_shape: tuple[int, int, int]) -> str:
    """Return the same for a folder's weights."""
    return weights_usage(folder / WEIGHTS, image_shape)


def render_card(network: ExportModule) -> str:
    """Return the model card: the Hub's metadata, then what a person wants to know."""
    config, card = network.network.config, network.card
    channels, height, width = card.image_shape
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return f"""---
{_head(network)}
---

# {_title(network)}

A VGG network (arXiv 1409.1556) for images of {height}×{width} pixels and {channels} \
{"channel" if channels == 1 else "channels"}, which tells {len(card.classes)} classes apart: \
{_layers(config)}; {parameters:,} parameters. Trained and exported with vggnet {__version__}.

## Use

```python
{weights_usage(Path(WEIGHTS), card.image_shape)}
```

Images are uint8, (N, {channels}, {height}, {width}), as the training data are. Without vggnet: \
`{WEIGHTS}` holds plain tensors under torchvision's names (`features.N.weight`, \
`classifier.N.weight`), and `{CONFIG}` says what else a program needs: the layers, the classes, \
and the mean and deviation of pixels that were divided by 255.

## Figures

{_figures(network)}
## Limits

It answers every image with one of its classes, whatever is on it, and was made for images
like those that it was trained on.
"""


def _config(network: ExportModule) -> dict[str, Any]:
    """Return what a program has to know of the network, under the Hub's usual names."""
    config, card = network.network.config, network.card
    return {
        "library_name": _LIBRARY,
        "library_version": __version__,
        "model_type": "vgg",
        "architectures": [config.name],
        "stages": config.layers.stages,
        "hidden_sizes": config.layers.hidden,
        "num_channels": config.in_channels,
        "image_size": config.image_size,
        "picture_size": card.image_shape[1:],
        "image_mean": card.mean,
        "image_std": card.std,
        "id2label": dict(enumerate(card.classes)),
        "label2id": {name: number for number, name in enumerate(card.classes)},
    }


def _head(network: ExportModule) -> str:
    """Return the card's metadata as YAML."""
    on_hub = _HUB_NAMES.get(network.dataset or "")
    values: dict[str, Any] = {
        "license": "apache-2.0",
        "library_name": _LIBRARY,
        "pipeline_tag": _TASK,
        "tags": [_TASK, "vgg", "pytorch", "safetensors", _LIBRARY],
        "metrics": ["accuracy"],
    }
    if on_hub:
        values["datasets"] = [on_hub]
    test = network.card.test
    if network.dataset and test:
        measured = {
            "task": {"type": _TASK},
            "dataset": {
                "name": network.dataset,
                "type": on_hub or network.dataset,
                "split": "test",
            },
            "metrics": [
                {"type": "accuracy", "value": test["accuracy"]},
                {"type": "cross-entropy", "value": test["loss"]},
            ],
        }
        values["model-index"] = [{"name": _title(network), "results": [measured]}]
    return "\n".join(
        f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in values.items()
    )


def _title(network: ExportModule) -> str:
    name = network.network.config.name
    name = "VGG" if name == "custom" else name
    return f"{name} on {network.dataset}" if network.dataset else name


def _layers(config: ModelConfig) -> str:
    stages = " / ".join(", ".join(map(str, stage)) for stage in config.layers.stages)
    hidden = ", ".join(map(str, config.layers.hidden)) or "none"
    return f"3×3 convolutions of {stages} channels, hidden layers of {hidden}"


def _figures(network: ExportModule) -> str:
    test = network.card.test
    if not (network.dataset and test):
        return "None were measured: the images to test on were not at hand.\n"
    return f"""\
On the {test["count"]:,.0f} test images of {network.dataset}, measured with these very weights:

| accuracy | cross-entropy |
|---|---|
| {100 * test["accuracy"]:.2f} % | {test["loss"]:.4f} nats |
"""
