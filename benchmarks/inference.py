"""Compare inference engines on one model file: images per second and latency of one image.

    python benchmarks/inference.py mnist_vggnet.pth --output benchmarks/results/inference

The engines are the compiled kernels, torch's convolutions contiguous and channels last, and ONNX
Runtime in float32 and int8. They take turns on the same test images in one process. Each takes
uint8 images and returns probabilities, as an exported file does.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from measuring import (
    build_parser,
    interleave,
    render_machine,
    render_spread,
    timed,
    write_report,
)

import vggnet
from vggnet.artifacts.export.int8 import quantize
from vggnet.artifacts.export.onnx_file import open_onnx, write_onnx
from vggnet.artifacts.export.program import EndToEndModel, Program, eager_program
from vggnet.artifacts.model_file import load_model
from vggnet.engine.device import computing
from vggnet.engine.processor import usable_cores

Pixels = npt.NDArray[np.uint8]
Engine = Callable[[Pixels], object]

BATCH = 128
SINGLES = 50
"""Images that are predicted one by one to measure latency."""


def channels_last(network: EndToEndModel) -> Program:
    """Return the network with channels-last weights, which makes torch compute channels last."""
    network.network.to(memory_format=torch.channels_last)
    return eager_program(network)


def load_engines(model: Path, folder: Path, calibration: Pixels, threads: int) -> dict[str, Engine]:
    """Load the model into every engine."""
    whole, small = folder / "float.onnx", folder / "int8.onnx"
    write_onnx(whole, EndToEndModel(load_model(model)))
    quantize(whole, small, calibration)
    classifier = vggnet.load(model, device="cpu", kernels="auto")
    return {
        "vggnet, compiled kernels": classifier.predict,
        "torch": eager_program(EndToEndModel(load_model(model))),
        "torch, channels last": channels_last(EndToEndModel(load_model(model))),
        "ONNX Runtime": open_onnx(whole, threads),
        "ONNX Runtime, int8": open_onnx(small, threads),
    }


def seconds_of(engine: Engine, pixels: Pixels, size: int) -> float:
    """Return the seconds that all images take in batches of `size`."""
    batches = [pixels[start : start + size] for start in range(0, len(pixels), size)]
    return timed(lambda: [engine(batch) for batch in batches])


def measure_engines(
    engines: dict[str, Engine], pixels: Pixels, rounds: int
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Return the images per second and the milliseconds of one image, per engine and round."""
    many, singles = pixels[: 10 * BATCH], pixels[:SINGLES]
    for engine in engines.values():
        seconds_of(engine, pixels[:BATCH], BATCH)
        seconds_of(engine, pixels[:3], 1)
    rates = {
        name: lambda run=engine: len(many) / seconds_of(run, many, BATCH)
        for name, engine in engines.items()
    }
    latencies = {
        name: lambda run=engine: 1e3 * seconds_of(run, singles, 1) / SINGLES
        for name, engine in engines.items()
    }
    return interleave(rates, rounds), interleave(latencies, rounds)


def main() -> None:
    parser = build_parser(__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=usable_cores())
    options = parser.parse_args()
    mnist = vggnet.load_dataset("mnist")
    with tempfile.TemporaryDirectory() as folder, computing("fp32", options.threads):
        calibration = mnist.train.images[::60]
        engines = load_engines(options.model, Path(folder), calibration, options.threads)
        rates, latencies = measure_engines(engines, mnist.test.images, options.rounds)
    baseline = statistics.median(rates["torch, channels last"])
    rows = "".join(
        f"| {name} | {render_spread(rates[name], 0)} "
        f"| {statistics.median(rates[name]) / baseline:.2f} "
        f"| {render_spread(latencies[name], 3)} |\n"
        for name in engines
    )
    text = f"""# Inference

Median (min to max) of {options.rounds} interleaved rounds.

| | images/s, batch {BATCH} | ratio to torch, channels last | one image, ms |
|---|---|---|---|
{rows}
{render_machine(options.threads)}"""
    write_report(options.output, text, {"images_per_second": rates, "latency_ms": latencies})


if __name__ == "__main__":
    main()
