"""ONNX Runtime's static quantization: weights and activations as 8-bit integers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vggnet.artifacts.export.onnx_file import INPUT
from vggnet.artifacts.export.program import Pixels
from vggnet.artifacts.export.quiet import quiet

CALIBRATION = 1_000
"""Training pictures that the ranges of activations are read from."""

_BATCH = 100


def quantize(source: Path, target: Path, pixels: Pixels) -> None:
    """Write an ONNX file again with 8-bit weights, one scale a channel, and activations.

    Args:
        source: The exported file, in float.
        target: Where the quantized one goes.
        pixels: Training pictures to calibrate on, uint8, (N, C, H, W).
    """
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Pictures(CalibrationDataReader):  # type: ignore[misc]
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
            Pictures(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=["Conv", "Gemm", "MatMul"],
        )
