"""Export a model for other programs; a file is kept only if it computes the same."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from vggnet.artifacts.atomic import put_in_place
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
from vggnet.artifacts.outputs import ONNX, PT2, WEIGHTS, Kind, check_output
from vggnet.errors import ConfigError, OutputError

T = TypeVar("T")


@dataclass(frozen=True)
class Format:
    """A format of exported files."""

    kind: Kind | None
    """The kind of file; None for a folder."""
    write: Callable[[Path, EndToEndModel], None]
    open: Callable[[Path, int], Program]
    """Load a written file, to run on a number of threads."""
    usage: Callable[[Path, tuple[int, int, int]], str]
    """Return Python code that runs the file."""


FORMATS: Mapping[str, Format] = {
    "onnx": Format(ONNX, write_onnx, open_onnx, onnx_usage),
    "pt2": Format(PT2, write_program, open_program, program_usage),
    "safetensors": Format(WEIGHTS, write_weights, open_weights, weights_usage),
    "hub": Format(None, write_hub, open_hub, hub_usage),
}


def check_target(kind: str, path: Path, source: Path, force: bool = False) -> None:
    """Refuse, before any work, a target that an export must not replace.

    Raises:
        ConfigError: `path` is the model itself, has the suffix of another format, or is
            something that vggnet did not write.
        OutputError: It cannot be written.
    """
    if file := FORMATS[kind].kind:
        if path.suffix.lower() not in file.suffixes:
            raise ConfigError(f"{path}: this output must end with {file.suffixes[0]}")
        check_output(path, file, [source], force)
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


def write_checked(path: Path, write: Callable[[Path], object], check: Callable[[Path], T]) -> T:
    """Write a file or folder next to its path, check it, and only then move it there.

    Raises:
        OutputError: It cannot be written; an existing file is unchanged.
    """
    place = Path(os.path.realpath(path))
    try:
        home = place if place.is_dir() else place.parent  # on the same disk, for the rename
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=home) as folder:
            made = Path(folder, path.name)
            write(made)
            found = check(made)
            _put(made, path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from None
    return found


def _put(made: Path, path: Path) -> None:
    if not made.is_dir():
        put_in_place(made, path)
        return
    path.mkdir(exist_ok=True)
    for file in made.iterdir():
        put_in_place(file, path / file.name)
