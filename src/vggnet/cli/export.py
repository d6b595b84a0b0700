"""`vggnet export`: convert a model for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from vggnet.cli import model_options as options
from vggnet.cli.options import DataDir, option_groups
from vggnet.cli.terminal import say, warn

_NOTABLE_LOSS = 0.1
"""Percentage points of accuracy that quantization may cost without a warning."""


@option_groups
def export(
    model: options.ModelFile,
    *,
    kind: Annotated[
        Literal["onnx", "pt2", "safetensors", "hub", "html", "c"],
        typer.Option(
            "--format",
            help="hub: a folder for Hugging Face's Hub; html: a page to draw on, in one file.",
        ),
    ] = "onnx",
    int8: Annotated[
        bool,
        typer.Option(
            "--int8",
            help="Quantize to 8 bits: ONNX, calibrated on training images, or the weights of C.",
        ),
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Default: the model's name, in the current folder."),
    ] = None,
    data_dir: DataDir = None,
    given: options.ModelOptions,
    force: options.Force = False,
    threads: options.Threads = None,
    as_json: options.Json = False,
) -> None:
    """Export a model to ONNX, PyTorch, safetensors, a folder for the Hub, a web page or C.

    The file is kept only if its outputs equal the network's on 1,000 test images. All but the
    page and C take images as uint8 (N, C, H, W), at any batch size.
    """
    from vggnet.engine.processor import usable_cores
    from vggnet.inference.convert import Target, convert

    target = Target(kind, output, int8, data_dir, force, tuple(given.inputs(model)))
    found = convert(given.load(model), model, target, threads or usable_cores())
    _print(found.facts, found.usage, as_json)


def _print(found: dict[str, Any], usage: str, as_json: bool) -> None:
    import json

    lines = [f"checked  {_describe_check(found)}"]
    lines.append(f"file     {found['path']} ({found['bytes'] / 1e6:.2f} MB)")
    lost = 0.0
    if "accuracy_int8" in found:
        before, after = 100 * found["accuracy_float"], 100 * found["accuracy_int8"]
        lost = before - after
        lines += [
            f"float    {before:.2f} % of the test set, {found['bytes_float'] / 1e6:.2f} MB",
            f"int8     {after:.2f} %, {found['bytes'] / 1e6:.2f} MB",
        ]
    if found.get("accuracy_page") is not None:
        before, after = 100 * found["accuracy_float"], 100 * found["accuracy_page"]
        lines.append(f"accuracy {after:.2f} % of these images, {before:.2f} % in float")
    if as_json:
        print(json.dumps(found))
    else:
        say("\n".join([*lines, "", usage]))
    if lost > _NOTABLE_LOSS:
        warn(f"8 bits cost {lost:.2f} percentage points of accuracy")


def _describe_check(found: dict[str, Any]) -> str:
    from vggnet.artifacts.export.program import BATCH_SIZES

    images = f"{found['images']:,} {found['source']}"
    worst = f"largest difference {found['worst'] or 0:.1e}"
    if "runtime" not in found:
        *small, large = BATCH_SIZES
        sizes = f"batch size {large}, fewer at {', '.join(map(str, small))}"
        return f"{images} at {sizes}: same classes, {worst}"
    weights = {32: "weights in float", 16: "weights in 16 bits", 8: "weights in 8 bits"}
    if found["runtime"] is None:
        missing = "C compiler" if found["format"] == "c" else "Node.js or browser"
        return f"not measured: no {missing} here; {weights[found['bits']]}"
    same = f"{found['same']:,} with the network's class"
    return f"{images}, run by {found['runtime']}: {same}, {worst}; {weights[found['bits']]}"
