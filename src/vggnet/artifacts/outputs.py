"""One rule for every file that a command writes: never destroy what vggnet did not write."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from vggnet.artifacts.atomic import check_writable
from vggnet.artifacts.model_file import SUFFIXES, is_own_file
from vggnet.data.files import open_regular
from vggnet.errors import ConfigError

_SEARCHED = 1 << 16
"""Bytes at either end of a file that are searched for vggnet's mark."""

ONNX_PRODUCER = "vggnet"
PNG_SOFTWARE = "vggnet"
PT2_CARD = "vggnet.json"
"""Name of the description in the archive that torch.export writes."""


@dataclass(frozen=True)
class Kind:
    """A kind of file that vggnet writes."""

    suffixes: tuple[str, ...]
    is_own: Callable[[Path], bool]
    """Whether vggnet wrote a file of this kind."""


def _contains(mark: bytes, path: Path) -> bool:
    try:
        with open_regular(path) as file:
            head = file.read(_SEARCHED)
            file.seek(max(0, path.stat().st_size - _SEARCHED))
            return mark in head or mark in file.read(_SEARCHED)
    except OSError:
        return False


MODEL = Kind(SUFFIXES, is_own_file)
WEIGHTS = Kind((".safetensors",), is_own_file)
PNG = Kind((".png",), partial(_contains, b"Software\0" + PNG_SOFTWARE.encode()))
ONNX = Kind((".onnx",), partial(_contains, b"\x12\x06" + ONNX_PRODUCER.encode()))
RESULT = Kind((".json",), partial(_contains, b'"schema_version":'))
HTML = Kind((".html",), partial(_contains, b'<p class="kicker">vggnet '))
PAGE = Kind((".html",), partial(_contains, b'<meta name="generator" content="vggnet">'))
C = Kind((".c",), partial(_contains, b"exported by vggnet."))
CSV = Kind((".csv",), partial(_contains, b"fault,image,label,description"))
# Written together with the page, and without a mark of its own.
MARKDOWN = Kind((".md",), lambda path: HTML.is_own(path.with_suffix(".html")))
PT2 = Kind((".pt2",), partial(_contains, b"/" + PT2_CARD.encode()))


def check_output(path: Path, kind: Kind, inputs: Sequence[Path] = (), force: bool = False) -> None:
    """Refuse, before any work, an output that would destroy another file.

    Args:
        path: The output.
        kind: What will be written.
        inputs: Files and folders that the command reads.
        force: Whether to replace a file that vggnet did not write. A file in a folder of
            `inputs` is an input, and never replaced.

    Raises:
        ConfigError: `path` is an input, has the suffix of another kind of file, or is a
            file that vggnet did not write.
        OutputError: It cannot be written, or is a folder, a pipe or a device.
    """
    if any(_is_same(path, one) for one in inputs):
        raise ConfigError(f"{path} is an input of this command; name another file to write")
    if path.suffix.lower() not in (*kind.suffixes, ""):
        raise ConfigError(f"{path}: this output must end with {', '.join(kind.suffixes)}")
    check_writable(path)
    if not path.exists() or not path.stat().st_size or kind.is_own(path):
        return
    if folder := next((one for one in inputs if _is_below(path, one)), None):
        raise ConfigError(f"{path} is in {folder}, an input of this command; name another file")
    if not force:
        raise ConfigError(
            f"{path} exists and does not look like a file that vggnet wrote; name another "
            "file, or pass --force to replace it"
        )


def check_outputs(
    outputs: Iterable[tuple[Path, Kind]], inputs: Sequence[Path], force: bool
) -> None:
    """Check several outputs as `check_output` does; none may be another one either."""
    taken = list(inputs)
    for path, kind in outputs:
        check_output(path, kind, taken, force)
        taken.append(path)


def _is_same(path: Path, other: Path) -> bool:
    try:
        return path.samefile(other)
    except OSError:
        return os.path.realpath(path) == os.path.realpath(other)


def _is_below(path: Path, folder: Path) -> bool:
    top = os.path.realpath(folder)
    return os.path.isdir(top) and Path(os.path.realpath(path)).is_relative_to(top)  # noqa: PTH112
