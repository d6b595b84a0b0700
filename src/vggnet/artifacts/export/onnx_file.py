"""`.onnx`: one self-contained file for ONNX Runtime and other programs that read ONNX."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch.export import Dim

from vggnet.artifacts.export.program import EndToEndModel, Outputs, Pixels, Program, quiet
from vggnet.artifacts.outputs import ONNX_PRODUCER
from vggnet.errors import ConfigError

INPUT = "pixels"
OUTPUTS = ("logits", "probabilities")


def check_extra() -> None:
    """Check that the packages for ONNX are installed.

    Raises:
        ConfigError: One is missing.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"--format onnx needs {error.name}: pip install 'vggnet[export]'"
        ) from None


def write_onnx(path: Path, model: EndToEndModel) -> None:
    """Write the model for any batch size, with its description in the metadata.

    Each entry of the description is one entry of the metadata, as JSON: `classes`, `mean`,
    `std`, `image_shape` and others.
    """
    with quiet():
        exported = torch.onnx.export(
            model,
            (model.example(),),
            input_names=[INPUT],
            output_names=list(OUTPUTS),
            dynamic_shapes=({0: Dim("batch", min=1)},),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    assert exported is not None
    proto = exported.model_proto
    proto.producer_name = ONNX_PRODUCER
    for node in proto.graph.node:
        node.ClearField("metadata_props")  # names folders of this machine
    described = model.card.model_dump(
        mode="json", exclude_none=True, exclude={"typicality"}, by_alias=True
    )
    for key, value in described.items():
        proto.metadata_props.add(key=key, value=json.dumps(value, ensure_ascii=False))
    path.write_bytes(proto.SerializeToString())


def open_onnx(path: Path, threads: int) -> Program:
    """Open a file with ONNX Runtime, on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(pixels: Pixels) -> Outputs:
        return Outputs(*session.run(list(OUTPUTS), {INPUT: pixels}))

    return run


def onnx_usage(path: Path, image_shape: tuple[int, int, int]) -> str:
    """Return Python code that runs the file on one black image."""
    shape = ", ".join(map(str, (1, *image_shape)))
    return f"""\
import numpy, onnxruntime
session = onnxruntime.InferenceSession({str(path)!r})
logits, probabilities = session.run(None, {{"{INPUT}": numpy.zeros(({shape}), "uint8")}})"""
