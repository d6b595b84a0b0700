"""Files that take their place only once they are checked."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from vggnet.artifacts.atomic import put_in_place
from vggnet.errors import OutputError

T = TypeVar("T")


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
