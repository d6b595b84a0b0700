"""ONNX Runtime's static quantization: weights and activations as 8-bit integers."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vggnet.artifacts.export import export_model, keep_if
from vggnet.artifacts.export.evidence import spread_over
from vggnet.artifacts.export.onnx_file import INPUT, open_onnx
from vggnet.artifacts.export.program import ExportModule, Pixels, score
from vggnet.artifacts.export.quiet import quiet
from vggnet.data.dataset import Dataset
from vggnet.errors import DataError

CALIBRATION = 1_000
"""Training images that the ranges of activations are read from."""

_BATCH = 100

_PRODUCTS = ["Conv", "Gemm", "MatMul"]
"""The operations that are quantized."""


@dataclass(frozen=True)
class Quantized:
    """What quantization cost and saved."""

    worst: float
    """Greatest difference of the float file from the network, before it was quantized."""
    accuracy_float: float
    """0 to 1, on the test set."""
    accuracy_int8: float
    bytes_float: int


def export_int8(
    network: ExportModule,
    path: Path,
    dataset: Dataset | None,
    evidence: tuple[Pixels, str],
    threads: int,
) -> Quantized:
    """Export in float, check that, quantize it, and measure what it costs.

    Args:
        network: What to export.
        path: The file.
        dataset: Its training images calibrate, its test images measure.
        evidence: Images to check the float file on, and what to call them.
        threads: For checking and measuring.

    Raises:
        DataError: There is no dataset.
        ConfigError, ExportError, OutputError: As `export_model`.
    """
    if dataset is None:
        raise DataError("--int8 calibrates on training images, and the dataset is not at hand")
    calibration = spread_over(dataset.train.images, CALIBRATION)
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder, "float.onnx")
        worst = export_model(network, "onnx", whole, *evidence, threads)
        before, _ = score(open_onnx(whole, threads), dataset.test)
        after, _ = keep_if(
            path,
            lambda made: quantize(whole, made, calibration),
            lambda made: score(open_onnx(made, threads), dataset.test),
        )
        return Quantized(worst, before, after, whole.stat().st_size)


def quantize(source: Path, target: Path, pixels: Pixels) -> None:
    """Write an ONNX file again with 8-bit weights, one scale a channel, and activations.

    Args:
        source: The exported file, in float.
        target: Where the quantized one goes.
        pixels: Training images to calibrate on, uint8, (N, C, H, W).
    """
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Images(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            starts = range(0, len(pixels), _BATCH)
            self._batches: Iterator[Pixels] = (pixels[at : at + _BATCH] for at in starts)

        def get_next(self) -> dict[str, Any] | None:
            batch = next(self._batches, None)
            return None if batch is None else {INPUT: batch}

    with quiet():
        quantize_static(
            source,
            target,
            Images(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=_PRODUCTS,
            # The logits stay in float: 8 bits would leave 256 probabilities.
            nodes_to_exclude=[_last_product(source)],
        )


def _last_product(path: Path) -> str:
    import onnx

    nodes = onnx.load(path).graph.node
    names: list[str] = [node.name for node in nodes if node.op_type in _PRODUCTS]
    return names[-1]
