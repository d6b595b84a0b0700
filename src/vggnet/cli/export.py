"""`vggnet export`: a model as a file for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from vggnet.errors import ConfigError, DataError

if TYPE_CHECKING:
    from vggnet.artifacts.export.program import PictureNetwork, Pixels, Program
    from vggnet.artifacts.model_file import ModelCard
    from vggnet.data.dataset import Dataset, LabeledImages

PARITY_IMAGES = 1_000

_NOTABLE_LOSS = 0.1
"""Points of accuracy that quantization may cost without a warning."""


def export(
    model: Annotated[Path, typer.Argument(help="A .pth or .safetensors file.", metavar="MODEL")],
    kind: Annotated[
        Literal["onnx", "pt2", "safetensors", "hub"],
        typer.Option("--format", help="hub: a folder as Hugging Face's Hub expects it."),
    ] = "onnx",
    int8: Annotated[
        bool, typer.Option("--int8", help="Quantize to 8 bits, calibrated on training pictures.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Default: the model's name, here.")
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder that holds the dataset in torchvision's layout.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads; default: the usable cores.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Export a model for ONNX Runtime, PyTorch alone, or the Hub.

    The file takes pictures as uint8 (N, C, H, W) and gives logits and probabilities. It is
    kept only if it answers 1,000 test pictures as the network does, at batches of 1 to 256.
    """
    from vggnet.artifacts.export import FORMATS, export_model
    from vggnet.artifacts.export.program import PictureNetwork
    from vggnet.artifacts.model_file import load_model
    from vggnet.engine.device import computing, usable_cores

    if int8 and kind != "onnx":
        raise ConfigError(f"--int8 is for --format onnx, not {kind}")
    suffix = FORMATS[kind].suffix
    path = output or Path(f"{model.stem}{'_int8' if int8 else ''}{suffix or '_hub'}")
    if suffix and path.suffix != suffix:
        raise ConfigError(f"{path}: a file of this format is named with {suffix}")
    loaded = load_model(model)
    data = (loaded.card.config or {}).get("data", {})
    count = threads or usable_cores()
    with computing("fp32", count):
        dataset = _find_dataset(data, data_dir, loaded.card.picture)
        loaded = loaded.model_copy(update={"card": _without_paths(loaded.card)})
        network = PictureNetwork(loaded, dataset.name if dataset else None)
        if dataset and kind == "hub":
            _measure(network, dataset.test)
        pixels, source = _choose_pixels(dataset, loaded.card.picture)
        if int8:
            found = _export_int8(network, path, dataset, count)
        else:
            parity = export_model(network, kind, path, pixels, source, count)
            found = {"images": parity.images, "source": source, "worst": parity.worst}
    size = sum(file.stat().st_size for file in (path.rglob("*") if path.is_dir() else [path]))
    found |= {"path": str(path), "format": kind, "bytes": size}
    _print(found, FORMATS[kind].usage(path, loaded.card.picture), as_json)


def _find_dataset(
    data: dict[str, Any], data_dir: Path | None, picture: tuple[int, int, int]
) -> Dataset | None:
    """Return the dataset that a model was trained on, where it is on this machine.

    Raises:
        DataError: It is not in the folder that the user names.
    """
    from vggnet.data.storage import load_dataset

    name, size = data.get("dataset", "mnist"), data.get("image_size")
    try:
        dataset = load_dataset(name, data_dir, download=False, image_size=size)
    except (ConfigError, DataError):
        if data_dir is not None:
            raise
        return None
    return dataset if dataset.shape == picture else None


def _without_paths(card: ModelCard) -> ModelCard:
    """Leave out where the data lie: a file that is given away shall not tell."""
    if card.config is None or "data" not in card.config:
        return card
    data = card.config["data"]
    shown = {**data, "data_dir": None, "dataset": Path(data.get("dataset", "mnist")).name}
    return card.model_copy(update={"config": {**card.config, "data": shown}})


def _choose_pixels(dataset: Dataset | None, picture: tuple[int, int, int]) -> tuple[Pixels, str]:
    """Return pictures to compare answers on: the first test pictures, or else noise."""
    import numpy as np

    if dataset:
        return dataset.test.images[:PARITY_IMAGES], f"{dataset.name} test pictures"
    noise = np.random.default_rng(0).integers(0, 256, (PARITY_IMAGES, *picture), dtype=np.uint8)
    return noise, "pictures of noise (the dataset is not at hand)"


def _measure(network: PictureNetwork, test: LabeledImages) -> None:
    """Measure these very weights on the test set, for the model card."""
    from vggnet.artifacts.export.program import eager_program

    accuracy, loss = _score(eager_program(network), test)
    figures = {"accuracy": accuracy, "loss": loss, "count": float(len(test))}
    network.card = network.card.model_copy(update={"test": figures})


def _score(program: Program, test: LabeledImages) -> tuple[float, float]:
    """Return accuracy and mean cross-entropy, nats."""
    import numpy as np

    from vggnet.artifacts.export.program import answer_all

    answers = answer_all(program, test.images, 256)
    right = answers.logits.argmax(1) == test.labels
    of_true = answers.probabilities[np.arange(len(test)), test.labels]
    return float(right.mean()), float(-np.log(of_true.clip(1e-12)).mean())


def _export_int8(
    network: PictureNetwork, path: Path, dataset: Dataset | None, threads: int
) -> dict[str, Any]:
    """Export in float, check it, quantize it, and measure what that costs."""
    import tempfile

    from vggnet.artifacts.export import export_model, keep_if
    from vggnet.artifacts.export.int8 import CALIBRATION, quantize
    from vggnet.artifacts.export.onnx_file import open_onnx

    if dataset is None:
        raise DataError("--int8 calibrates on training pictures, and the dataset is not at hand")
    pixels, source = _choose_pixels(dataset, network.card.picture)
    step = max(1, len(dataset.train) // CALIBRATION)
    calibration = dataset.train.images[::step][:CALIBRATION]
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder, "float.onnx")
        parity = export_model(network, "onnx", whole, pixels, source, threads)
        before, _ = _score(open_onnx(whole, threads), dataset.test)
        after, _ = keep_if(
            path,
            lambda made: quantize(whole, made, calibration),
            lambda made: _score(open_onnx(made, threads), dataset.test),
        )
        return {
            "images": parity.images,
            "source": source,
            "worst": parity.worst,
            "accuracy_float": before,
            "accuracy_int8": after,
            "bytes_float": whole.stat().st_size,
        }


def _print(found: dict[str, Any], usage: str, as_json: bool) -> None:
    import json
    import sys

    if as_json:
        print(json.dumps(found))
    else:
        print(
            f"checked  {found['images']:,} {found['source']} at batches of 1, 2, 7 and 256: "
            f"same classes, at most {found['worst']:.1e} apart\n"
            f"file     {found['path']} ({found['bytes'] / 1e6:.2f} MB)"
        )
    if "accuracy_int8" not in found:
        if not as_json:
            print(f"\n{usage}")
        return
    before, after = 100 * found["accuracy_float"], 100 * found["accuracy_int8"]
    if not as_json:
        print(
            f"float    {before:.2f} % of the test set, {found['bytes_float'] / 1e6:.2f} MB\n"
            f"int8     {after:.2f} %, {found['bytes'] / 1e6:.2f} MB\n\n{usage}"
        )
    if before - after > _NOTABLE_LOSS:
        print(
            f"vggnet: warning: 8 bits cost {before - after:.2f} points of accuracy", file=sys.stderr
        )
