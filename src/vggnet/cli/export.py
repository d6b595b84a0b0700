"""`vggnet export`: a model file for other programs."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from vggnet.cli.options import DataDir, Json, ModelFile, Threads
from vggnet.errors import ConfigError

_NOTABLE_LOSS = 0.1
"""Percentage points of accuracy that quantization may cost without a warning."""


def export(
    model: ModelFile,
    kind: Annotated[
        Literal["onnx", "pt2", "safetensors", "hub"],
        typer.Option("--format", help="hub: a folder for the Hugging Face Hub."),
    ] = "onnx",
    int8: Annotated[
        bool, typer.Option("--int8", help="Quantize to 8 bits; training images calibrate it.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Default: the model's name, in this folder."),
    ] = None,
    data_dir: DataDir = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Export a model for ONNX Runtime, for PyTorch without vggnet, or for the Hub.

    The file takes images as uint8 (N, C, H, W) and returns logits and probabilities. It is
    kept only if its predictions for 1,000 test images equal the network's, with batches of 1
    to 256.
    """
    from vggnet.artifacts.export import FORMATS, check_place, export_model
    from vggnet.artifacts.export.evidence import choose_pixels, find_dataset
    from vggnet.artifacts.export.int8 import export_int8
    from vggnet.artifacts.export.program import ExportModule
    from vggnet.artifacts.model_file import load_model
    from vggnet.engine.device import computing, usable_cores

    if int8 and kind != "onnx":
        raise ConfigError(f"--int8 needs --format onnx, not {kind}")
    suffix = FORMATS[kind].suffix
    path = output or Path(f"{model.stem}{'_int8' if int8 else ''}{suffix or '_hub'}")
    if suffix and path.suffix != suffix:
        raise ConfigError(f"{path}: use the suffix {suffix} for --format {kind}")
    if os.path.realpath(path) == os.path.realpath(model):
        raise ConfigError(f"{path} is the model itself; choose another file with --output")
    loaded = load_model(model)
    check_place(path, is_folder=not suffix)  # before the slow part
    count = threads or usable_cores()
    with computing("fp32", count):
        dataset = find_dataset(loaded.card, data_dir)
        shown = loaded.model_copy(update={"card": loaded.card.without_paths()})
        network = ExportModule(shown, dataset.name if dataset else None)
        if dataset and kind == "hub":
            network.measure(dataset.test)
        pixels, source = choose_pixels(dataset, loaded.card.image_shape)
        found: dict[str, Any] = {"images": len(pixels), "source": source}
        if int8:
            quantized = export_int8(network, path, dataset, (pixels, source), count)
            found |= asdict(quantized)
        else:
            found["worst"] = export_model(network, kind, path, pixels, source, count)
    size = sum(file.stat().st_size for file in (path.rglob("*") if path.is_dir() else [path]))
    found |= {"path": str(path), "format": kind, "bytes": size}
    _print(found, FORMATS[kind].usage(path, loaded.card.image_shape), as_json)


def _print(found: dict[str, Any], usage: str, as_json: bool) -> None:
    import json
    import sys

    from vggnet.artifacts.export.parity import BATCH_SIZES

    if as_json:
        print(json.dumps(found))
    else:
        print(
            f"checked  {found['images']:,} {found['source']} "
            f"at batches of {', '.join(map(str, BATCH_SIZES))}: "
            f"same classes, maximum difference {found['worst']:.1e}\n"
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
            f"vggnet: warning: int8 costs {before - after:.2f} points of accuracy", file=sys.stderr
        )
