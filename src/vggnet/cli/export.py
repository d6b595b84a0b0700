"""`vggnet export`: convert a model for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from vggnet.cli import model_options as options
from vggnet.cli.options import DataDir
from vggnet.cli.terminal import say, warn
from vggnet.errors import ConfigError

_NOTABLE_LOSS = 0.1
"""Percentage points of accuracy that quantization may cost without a warning."""


def export(
    model: options.ModelFile,
    kind: Annotated[
        Literal["onnx", "pt2", "safetensors", "hub"],
        typer.Option("--format", help="hub: a folder for Hugging Face's Hub."),
    ] = "onnx",
    int8: Annotated[
        bool, typer.Option("--int8", help="Quantize to 8 bits, calibrated on training images.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Default: the model's name, in the current folder."),
    ] = None,
    data_dir: DataDir = None,
    mean: options.Mean = None,
    std: options.Std = None,
    image_size: options.ModelImageSize = None,
    classes: options.Classes = None,
    force: options.Force = False,
    threads: options.Threads = None,
    as_json: options.Json = False,
) -> None:
    """Export a model to ONNX, PyTorch, safetensors or a folder for the Hub.

    The file takes images as uint8 (N, C, H, W) and returns logits and probabilities. It is
    kept only if its outputs equal the network's on 1,000 test images, at batch sizes 1 to 256.
    """
    from vggnet.artifacts.export.convert import Target, convert
    from vggnet.artifacts.model_file import load_model
    from vggnet.engine.processor import usable_cores

    if int8 and kind != "onnx":
        raise ConfigError(f"--int8 works with --format onnx, not with {kind}")
    overrides = options.read_overrides(mean, std, image_size, classes)
    target = Target(kind, output, int8, data_dir, force)
    found = convert(load_model(model, overrides), model, target, threads or usable_cores())
    _print(found.facts, found.usage, as_json)


def _print(found: dict[str, Any], usage: str, as_json: bool) -> None:
    import json

    from vggnet.artifacts.export.program import BATCH_SIZES

    lines = [
        f"checked  {found['images']:,} {found['source']} "
        f"at batch sizes {', '.join(map(str, BATCH_SIZES))}: "
        f"same classes, largest difference {found['worst']:.1e}",
        f"file     {found['path']} ({found['bytes'] / 1e6:.2f} MB)",
    ]
    lost = 0.0
    if "accuracy_int8" in found:
        before, after = 100 * found["accuracy_float"], 100 * found["accuracy_int8"]
        lost = before - after
        lines += [
            f"float    {before:.2f} % of the test set, {found['bytes_float'] / 1e6:.2f} MB",
            f"int8     {after:.2f} %, {found['bytes'] / 1e6:.2f} MB",
        ]
    if as_json:
        print(json.dumps(found))
    else:
        say("\n".join([*lines, "", usage]))
    if lost > _NOTABLE_LOSS:
        warn(f"8 bits cost {lost:.2f} percentage points of accuracy")
