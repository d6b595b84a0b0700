"""`.pt2`: the network as torch.export's program, for PyTorch without vggnet."""

from __future__ import annotations

import io
from pathlib import Path

import torch
from torch.export import Dim

from vggnet.artifacts.export.program import ExportModule, Program, eager_program
from vggnet.artifacts.export.quiet import quiet

CARD = "vggnet.json"
"""The description's name inside the archive; `torch.export.load(extra_files=…)` reads it."""


def write_program(path: Path, network: ExportModule) -> None:
    """Write the network for any batch size, with its description."""
    with quiet():
        program = torch.export.export(
            network, (network.example(),), dynamic_shapes=({0: Dim("batch", min=1)},)
        )
        for node in program.graph.nodes:
            # It names the folders of the machine that exports.
            node.meta.pop("stack_trace", None)
        # Through memory: torch's own writer ends the process when the disk is full.
        file = io.BytesIO()
        torch.export.save(
            program, file, extra_files={CARD: network.card.model_dump_json(by_alias=True)}
        )
    path.write_bytes(file.getvalue())


def open_program(path: Path, threads: int) -> Program:
    """Read a program that this process wrote; a stranger's could run code."""
    with quiet():
        return eager_program(torch.export.load(path).module())


def program_usage(path: Path, image_shape: tuple[int, int, int]) -> str:
    """Return Python that runs the file on one black image."""
    shape = ", ".join(map(str, (1, *image_shape)))
    return f"""\
import torch
network = torch.export.load({str(path)!r}).module()
logits, probabilities = network(torch.zeros({shape}, dtype=torch.uint8))"""
