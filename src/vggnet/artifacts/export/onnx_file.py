"""`.onnx`: one self-contained file for ONNX Runtime and whatever else reads ONNX."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch.export import Dim

from vggnet.artifacts.export.program import Answers, ExportModule, Pixels, Program
from vggnet.artifacts.export.quiet import quiet
from vggnet.errors import ConfigError

INPUT = "pixels"
OUTPUTS = ("logits", "probabilities")


def check_extra() -> None:
    """Find out whether what ONNX needs is installed.

    Raises:
        ConfigError: It is not.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"--format onnx needs an extra, {error.name} is missing: pip install 'vggnet[export]'"
        ) from None


def write_onnx(path: Path, network: ExportModule) -> None:
    """Write the network for any batch size, with its description in the metadata.

    Each fact of the description is an entry of its own, in JSON: `classes`, `mean`, `std`,
    `image`, and what else is known.
    """
    with quiet():
        exported = torch.onnx.export(
            network,
            (network.example(),),
            input_names=[INPUT],
            output_names=list(OUTPUTS),
            dynamic_shapes=({0: Dim("batch", min=1)},),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    assert exported is not None
    proto = exported.model_proto
    for node in proto.graph.node:
        # torch's notes on each node name the folders of the machine that exports.
        node.ClearField("metadata_props")
    for key, value in network.card.model_dump(
        mode="json", exclude_none=True, by_alias=True
    ).items():
        proto.metadata_props.add(key=key, value=json.dumps(value, ensure_ascii=False))
    path.write_bytes(proto.SerializeToString())


def open_onnx(path: Path, threads: int) -> Program:
    """Open a file with ONNX Runtime, on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(pixels: Pixels) -> Answers:
        return Answers(*session.run(list(OUTPUTS), {INPUT: pixels}))

    return run


def onnx_usage(path: Path, image_shape: tuple[int, int, int]) -> str:
    """Return Python that runs the file on one black image."""
    shape = ", ".join(map(str, (1, *image_shape)))
    return f"""\
import numpy, onnxruntime
session = onnxruntime.InferenceSession({str(path)!r})
logits, probabilities = session.run(None, {{"{INPUT}": numpy.zeros(({shape}), "uint8")}})"""
