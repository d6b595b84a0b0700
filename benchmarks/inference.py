"""How fast a model file answers, by which engine: images a second, and one image's latency.

    python benchmarks/inference.py MODEL [--rounds 15] [--threads N] [--output STEM]

The compiled kernels, torch's convolutions in the usual layout and channels last, and ONNX
Runtime in float and in 8 bits take turns on the same test images in one process. Each takes
uint8 images and gives probabilities, as an exported file does.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

import vggnet
from vggnet.artifacts.export.int8 import quantize
from vggnet.artifacts.export.onnx_file import open_onnx, write_onnx
from vggnet.artifacts.export.program import ExportModule, Program, eager_program
from vggnet.artifacts.model_file import load_model
from vggnet.engine.device import computing, usable_cores
from vggnet.engine.environment import describe_environment

Pixels = npt.NDArray[np.uint8]
BATCH = 128
LATENCIES = 50


def channels_last(network: ExportModule) -> Program:
    """Return the network with its filters laid out channels last, which torch follows."""
    network.network.to(memory_format=torch.channels_last)
    return eager_program(network)


def open_engines(
    model: Path, folder: Path, calibration: Pixels, threads: int
) -> dict[str, Callable[[Pixels], object]]:
    """Make every engine ready to run."""
    whole, small = folder / "float.onnx", folder / "int8.onnx"
    write_onnx(whole, ExportModule(load_model(model)))
    quantize(whole, small, calibration)
    classifier = vggnet.load(model, device="cpu", kernels="auto")
    return {
        "vggnet, compiled kernels": classifier.predict,
        "torch": eager_program(ExportModule(load_model(model))),
        "torch, channels last": channels_last(ExportModule(load_model(model))),
        "ONNX Runtime": open_onnx(whole, threads),
        "ONNX Runtime, int8": open_onnx(small, threads),
    }


def timed(run: Callable[[Pixels], object], pixels: Pixels, size: int) -> float:
    """Return the seconds of all images, `size` at a time."""
    started = time.perf_counter()
    for start in range(0, len(pixels), size):
        run(pixels[start : start + size])
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--output", type=Path, help="stem of the .md and .json to write")
    options = parser.parse_args()
    mnist = vggnet.load_dataset("mnist")
    pixels, few = mnist.test.images[: 10 * BATCH], mnist.test.images[:LATENCIES]
    with tempfile.TemporaryDirectory() as folder, computing("fp32", options.threads):
        calibration = mnist.train.images[::60]
        engines = open_engines(options.model, Path(folder), calibration, options.threads)
        rates: dict[str, list[float]] = {name: [] for name in engines}
        latencies: dict[str, list[float]] = {name: [] for name in engines}
        for run in engines.values():
            timed(run, pixels[:BATCH], BATCH)
            timed(run, few[:3], 1)
        for _ in range(options.rounds):
            for name, run in engines.items():
                rates[name].append(len(pixels) / timed(run, pixels, BATCH))
                latencies[name].append(1000 * timed(run, few, 1) / LATENCIES)
    found = describe_environment()
    torchs = statistics.median(rates["torch, channels last"])
    text = f"""# Inference

{options.rounds} interleaved rounds; medians (least to most).

| | images/s, batch {BATCH} | over torch, channels last | one image, ms |
|---|---|---|---|
"""
    for name in engines:
        ratio = statistics.median(rates[name]) / torchs
        text += f"| {name} | {spread(rates[name], 0)} | {ratio:.2f} "
        text += f"| {spread(latencies[name], 3)} |\n"
    text += f"""
- machine: {found["cpu"]}, {found["cpu_isa"]}, {options.threads} threads; torch {found["torch"]}
- command: `python benchmarks/inference.py {shlex.join(sys.argv[1:])}`
"""
    print(text)
    if options.output:
        options.output.with_suffix(".md").write_text(text)
        record = {"environment": found, "images_per_second": rates, "latency_ms": latencies}
        options.output.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")


def spread(values: list[float], digits: int) -> str:
    """Write median (least to most)."""
    middle, least, most = statistics.median(values), min(values), max(values)
    return f"{middle:,.{digits}f} ({least:,.{digits}f} to {most:,.{digits}f})"


if __name__ == "__main__":
    main()
