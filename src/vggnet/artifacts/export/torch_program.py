"""`.pt2`: the model as torch.export writes it, for PyTorch without vggnet."""

from __future__ import annotations

import io
from pathlib import Path

import torch
from torch.export import Dim

from vggnet.artifacts.export.program import EndToEndModel, Program, eager_program, quiet
from vggnet.artifacts.outputs import PT2_CARD


def write_program(path: Path, model: EndToEndModel) -> None:
    """Write the model for any batch size, with its description as an extra file."""
    with quiet():
        program = torch.export.export(
            model, (model.example(),), dynamic_shapes=({0: Dim("batch", min=1)},)
        )
        for node in program.graph.nodes:
            node.meta.pop("stack_trace", None)  # names folders of this machine
        # In memory first: torch's own writer crashes the process when the disk is full.
        file = io.BytesIO()
        torch.export.save(
            program, file, extra_files={PT2_CARD: model.card.model_dump_json(by_alias=True)}
        )
    path.write_bytes(file.getvalue())


def open_program(path: Path, threads: int) -> Program:
    """Load a program that this process wrote; one from elsewhere could run code."""
    with quiet():
        return eager_program(torch.export.load(path).module())


def program_usage(path: Path, image_shape: tuple[int, int, int]) -> str:
    """Return Python code that runs the file on one black image."""
    shape = ", ".join(map(str, (1, *image_shape)))
    return f"""\
import torch
network = torch.export.load({str(path)!r}).module()
logits, probabilities = network(torch.zeros({shape}, dtype=torch.uint8))"""
