"""A folder for Hugging Face's Hub: weights, configuration, model card.

The card starts with YAML metadata (https://huggingface.co/docs/hub/model-cards). Its values
are written as JSON, which is valid YAML once the characters in `_NOT_IN_YAML` are escaped. Class
and dataset names are escaped in its text.
"""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

from vggnet import __version__
from vggnet.artifacts.export.program import EndToEndModel, Program, eager_program
from vggnet.artifacts.model_file import load_model, save_model
from vggnet.config import ModelConfig
from vggnet.data.files import read_text
from vggnet.errors import ConfigError, OutputError

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"

_LIBRARY = "vggnet"
_TASK = "image-classification"

_HUB_NAMES = {"mnist": "ylecun/mnist", "fashion-mnist": "zalando-datasets/fashion_mnist"}
"""Names of datasets on the Hub."""

_NOT_IN_YAML = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
"""Characters that JSON allows in a string, and that YAML refuses or takes for the end of a line
(https://yaml.org/spec/1.1, sections 4.1.1 and 4.1.4)."""


def check_hub_folder(folder: Path, source: Path) -> None:
    """Refuse a folder that holds anything but an earlier export.

    Raises:
        ConfigError: It does, or the model that is exported is in it.
        OutputError: It cannot be read.
    """
    try:
        if not folder.exists():
            return
        if not folder.is_dir() or (any(folder.iterdir()) and not _is_own(folder)):
            raise ConfigError(f"{folder} holds something else; name a new folder")
        if (folder / WEIGHTS).exists() and (folder / WEIGHTS).samefile(source):
            raise ConfigError(f"{folder} is an input of this command; name another folder")
    except OSError as error:
        raise OutputError(f"cannot write {folder}: {error.strerror or error}") from None


def _is_own(folder: Path) -> bool:
    try:
        config = json.loads(read_text(folder / CONFIG))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(config, dict) and config.get("library_name") == _LIBRARY


def write_weights(path: Path, model: EndToEndModel) -> None:
    """Write the weights and their description as `.safetensors`."""
    save_model(path, model.network, model.card)


def open_weights(path: Path, threads: int) -> Program:
    """Load a `.safetensors` file and run it in PyTorch."""
    return eager_program(EndToEndModel(load_model(path)))


def write_hub(folder: Path, model: EndToEndModel) -> None:
    """Write the folder and its three files; the results in the card are `model.card.test`."""
    folder.mkdir()
    write_weights(folder / WEIGHTS, model)
    config = json.dumps(_config(model), indent=2, ensure_ascii=False)
    (folder / CONFIG).write_text(config + "\n", encoding="utf-8")
    (folder / CARD).write_text(render_card(model), encoding="utf-8")


def open_hub(folder: Path, threads: int) -> Program:
    """Load a folder's weights and run them in PyTorch."""
    return open_weights(folder / WEIGHTS, threads)


def weights_usage(path: Path, image_shape: tuple[int, int, int]) -> str:
    """Return Python code that classifies one black image."""
    return f"""\
import numpy, vggnet
model = vggnet.load({str(path)!r})
print(model.predict(numpy.zeros({(1, *image_shape)}, "uint8")).classes)"""


def hub_usage(folder: Path, image_shape: tuple[int, int, int]) -> str:
    """Return the same code for a folder's weights."""
    return weights_usage(folder / WEIGHTS, image_shape)


def render_card(model: EndToEndModel) -> str:
    """Return the model card: the Hub's metadata, then text for people."""
    config, card = model.network.config, model.card
    channels, height, width = card.image_shape
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return f"""---
{_head(model)}
---

# {_escape(_title(model))}

A VGG network (arXiv 1409.1556) for images of {height}×{width} pixels with {channels} \
{"channel" if channels == 1 else "channels"} and {len(card.classes)} classes: \
{_layers(config)}; {parameters:,} parameters. Trained and exported with vggnet {__version__}.

## Use

```python
{weights_usage(Path(WEIGHTS), card.image_shape)}
```

Images are uint8, (N, {channels}, {height}, {width}), like the training data. Without vggnet: \
`{WEIGHTS}` holds plain tensors under torchvision's names (`features.N.weight`, \
`classifier.N.weight`), and `{CONFIG}` says the rest: the layers, the classes, and the mean and \
standard deviation of pixels in [0, 1].

## Results

{_results(model)}
## Limits

The model assigns one of its classes to every image. It works for images like those that it \
was trained on.
"""


def _config(model: EndToEndModel) -> dict[str, Any]:
    """Return what a program needs to know of the network, under the Hub's usual names."""
    config, card = model.network.config, model.card
    return {
        "library_name": _LIBRARY,
        "library_version": __version__,
        "model_type": "vgg",
        "architectures": [config.name],
        "stages": config.layers.stages,
        "hidden_sizes": config.layers.hidden,
        "num_channels": config.in_channels,
        "image_size": config.image_size,
        "picture_size": card.image_shape[1:],  # as version 0.1 calls it
        "image_mean": card.mean,
        "image_std": card.std,
        "id2label": dict(enumerate(card.classes)),
        "label2id": {name: number for number, name in enumerate(card.classes)},
    }


def _head(model: EndToEndModel) -> str:
    """Return the card's metadata as YAML."""
    on_hub = _HUB_NAMES.get(model.dataset or "")
    values: dict[str, Any] = {
        "license": "apache-2.0",
        "library_name": _LIBRARY,
        "pipeline_tag": _TASK,
        "tags": [_TASK, "vgg", "pytorch", "safetensors", _LIBRARY],
        "metrics": ["accuracy"],
    }
    if on_hub:
        values["datasets"] = [on_hub]
    test = model.card.test
    if model.dataset and test:
        measured = {
            "task": {"type": _TASK},
            "dataset": {
                "name": model.dataset,
                "type": on_hub or model.dataset,
                "split": "test",
            },
            "metrics": [
                {"type": "accuracy", "value": test["accuracy"]},
                {"type": "cross-entropy", "value": test["loss"]},
            ],
        }
        values["model-index"] = [{"name": _title(model), "results": [measured]}]
    return "\n".join(f"{key}: {_to_yaml(value)}" for key, value in values.items())


def _to_yaml(value: Any) -> str:
    """Return a value in one line; characters outside the basic plane stay as they are.

    In JSON's own escape they would be two surrogates, which YAML does not join.
    """
    text = json.dumps(value, ensure_ascii=False)
    return _NOT_IN_YAML.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _title(model: EndToEndModel) -> str:
    name = model.network.config.name
    name = "VGG" if name == "custom" else name
    return f"{name} on {model.dataset}" if model.dataset else name


def _layers(config: ModelConfig) -> str:
    stages = " / ".join(", ".join(map(str, stage)) for stage in config.layers.stages)
    hidden = ", ".join(map(str, config.layers.hidden)) or "none"
    return f"3×3 convolutions of {stages} channels, hidden layers of {hidden}"


def _results(model: EndToEndModel) -> str:
    test = model.card.test
    if not (model.dataset and test):
        return "Not measured: the test images were not found.\n"
    return f"""\
On the {test["count"]:,.0f} test images of {_escape(model.dataset)}, measured with these weights:

| accuracy | cross-entropy |
|---|---|
| {100 * test["accuracy"]:.2f} % | {test["loss"]:.4f} nats |
"""


def _escape(text: str) -> str:
    """Escape a name for Markdown and for HTML inside Markdown."""
    line = " ".join(text.split())
    return re.sub(r"([\\`*_{}\[\]()#+|~$@!])", r"\\\1", html.escape(line, quote=False))
