"""Pieces of HTML for notebooks, which load nothing from elsewhere."""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Callable
from pathlib import Path


def render_inline(draw: Callable[[Path], object], title: str) -> str:
    """Return an `<img>` element with the PNG that `draw` writes to a path."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "figure.png")
        draw(path)
        return inline_png(path, title)


def inline_png(path: Path, title: str) -> str:
    """Return an `<img>` element with a PNG file inside.

    Raises:
        OSError: It cannot be read.
    """
    data = base64.b64encode(path.read_bytes()).decode()
    return (
        f'<div><img alt="{title}" style="max-width:100%" src="data:image/png;base64,{data}"></div>'
    )
