"""Export a model for other programs; a file is kept only if it computes the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vggnet.artifacts.export.c_file import c_usage
from vggnet.artifacts.export.checked import write_checked
from vggnet.artifacts.export.hub import (
    check_hub_folder,
    hub_usage,
    open_hub,
    open_weights,
    weights_usage,
    write_hub,
    write_weights,
)
from vggnet.artifacts.export.onnx_file import check_extra, onnx_usage, open_onnx, write_onnx
from vggnet.artifacts.export.program import (
    EndToEndModel,
    Pixels,
    Program,
    check_parity,
    eager_program,
)
from vggnet.artifacts.export.torch_program import open_program, program_usage, write_program
from vggnet.artifacts.outputs import ONNX, PAGE, PT2, WEIGHTS, C, Kind, check_output
from vggnet.errors import ConfigError


@dataclass(frozen=True)
class Target:
    """What an export makes."""

    kind: Kind | None
    """The kind of file; None for a folder."""
    usage: Callable[[Path, tuple[int, int, int]], str]
    """Return how to run it, such as Python code."""


@dataclass(frozen=True)
class Format(Target):
    """A format that `export_model` writes."""

    write: Callable[[Path, EndToEndModel], None]
    open: Callable[[Path, int], Program]
    """Load a written file, to run on a number of threads."""


FORMATS: Mapping[str, Format] = {
    "onnx": Format(ONNX, onnx_usage, write_onnx, open_onnx),
    "pt2": Format(PT2, program_usage, write_program, open_program),
    "safetensors": Format(WEIGHTS, weights_usage, write_weights, open_weights),
    "hub": Format(None, hub_usage, write_hub, open_hub),
}

TARGETS: Mapping[str, Target] = {
    **FORMATS,
    "html": Target(PAGE, lambda path, _: f"Open {path} in a browser; it needs no connection."),
    "c": Target(C, c_usage),
}
"""With those that have a function of their own: `vggnet.page.export`, `export_c`."""


def check_target(
    kind: str, path: Path, source: Path, inputs: Sequence[Path] = (), force: bool = False
) -> None:
    """Refuse, before any work, a target that an export must not replace.

    Raises:
        ConfigError: `path` is the model itself or another input, has the suffix of another
            format, or is something that vggnet did not write.
        OutputError: It cannot be written.
    """
    if file := TARGETS[kind].kind:
        if path.suffix.lower() not in file.suffixes:
            raise ConfigError(f"{path}: this output must end with {file.suffixes[0]}")
        check_output(path, file, [source, *inputs], force)
    else:
        check_hub_folder(path, source)


def export_model(
    model: EndToEndModel, kind: str, path: Path, pixels: Pixels, source: str, threads: int
) -> float:
    """Write a model in a format, load it again, and keep it if it computes the same.

    Args:
        model: The model to export.
        kind: A key of `FORMATS`.
        path: The file, or the folder for "hub"; see `check_target`.
        pixels: Images to compare on, uint8, (N, C, H, W).
        source: What to call them.
        threads: For the comparison.

    Returns:
        The largest difference between two logits or two probabilities.

    Raises:
        ConfigError: A package for the format is not installed.
        ExportError: The results differ; no file is left.
        OutputError: The file cannot be written; an existing file is unchanged.
    """
    form = FORMATS[kind]
    if kind == "onnx":
        check_extra()

    def check(made: Path) -> float:
        return check_parity(form.open(made, threads), eager_program(model), pixels, source)

    return write_checked(path, lambda made: form.write(made, model), check)
