"""A model as a file for other programs, which counts only if it answers as the network does."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from vggnet.artifacts.atomic import put_in_place
from vggnet.artifacts.export.hub import (
    hub_usage,
    is_ours,
    open_hub,
    open_weights,
    weights_usage,
    write_hub,
    write_weights,
)
from vggnet.artifacts.export.onnx_file import check_extra, onnx_usage, open_onnx, write_onnx
from vggnet.artifacts.export.parity import check_parity
from vggnet.artifacts.export.program import ExportModule, Pixels, Program, eager_program
from vggnet.artifacts.export.torch_program import open_program, program_usage, write_program
from vggnet.errors import ConfigError, OutputError

T = TypeVar("T")


@dataclass(frozen=True)
class Format:
    """One kind of file."""

    suffix: str
    """Of its name; "" for a folder."""
    write: Callable[[Path, ExportModule], None]
    open: Callable[[Path, int], Program]
    """Make a written file ready to run on some threads."""
    usage: Callable[[Path, tuple[int, int, int]], str]
    """Python that runs the file."""


FORMATS: Mapping[str, Format] = {
    "onnx": Format(".onnx", write_onnx, open_onnx, onnx_usage),
    "pt2": Format(".pt2", write_program, open_program, program_usage),
    "safetensors": Format(".safetensors", write_weights, open_weights, weights_usage),
    "hub": Format("", write_hub, open_hub, hub_usage),
}


def export_model(
    network: ExportModule, kind: str, path: Path, pixels: Pixels, source: str, threads: int
) -> float:
    """Write a model in a format, read it back, and keep it if it answers as the network does.

    Args:
        network: What to export.
        kind: A key of `FORMATS`.
        path: The file, or the folder for "hub".
        pixels: Images to compare the answers on, uint8, (N, C, H, W).
        source: What to call them.
        threads: For the comparison.

    Returns:
        The greatest difference between two logits or two probabilities.

    Raises:
        ConfigError: What the format needs is not installed, or something else stands there.
        ExportError: The answers differ; nothing is left behind.
        OutputError: It cannot be written; what stood there is untouched.
    """
    form = FORMATS[kind]
    check_place(path, is_folder=not form.suffix)
    if kind == "onnx":
        check_extra()

    def check(made: Path) -> float:
        program = form.open(made, threads)
        return check_parity(program, eager_program(network), pixels, source)

    return keep_if(path, lambda made: form.write(made, network), check)


def keep_if(path: Path, write: Callable[[Path], object], check: Callable[[Path], T]) -> T:
    """Write beside a place, check what was written, and only then put it there.

    Raises:
        OutputError: It cannot be written; what stood there is untouched.
    """
    place = Path(os.path.realpath(path))
    try:
        home = place if place.is_dir() else place.parent  # on the disk that holds it, for a rename
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=home) as folder:
            made = Path(folder, path.name)
            write(made)
            found = check(made)
            _put(made, path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from None
    return found


def check_place(path: Path, is_folder: bool) -> None:
    """Refuse to write over what no export has made.

    Raises:
        ConfigError: A folder stands where a file shall go, or another's folder, or a file,
            where a folder shall.
        OutputError: The system does not say what stands there.
    """
    try:
        if is_folder and path.exists() and not (path.is_dir() and _is_replaceable(path)):
            raise ConfigError(f"{path} holds something else; name a new folder")
        if not is_folder and path.is_dir():
            raise ConfigError(f"{path} is a folder; name a file in it")
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from None


def _is_replaceable(folder: Path) -> bool:
    return is_ours(folder) or not any(folder.iterdir())


def _put(made: Path, path: Path) -> None:
    if not made.is_dir():
        put_in_place(made, path)
        return
    path.mkdir(exist_ok=True)
    for file in made.iterdir():
        put_in_place(file, path / file.name)
