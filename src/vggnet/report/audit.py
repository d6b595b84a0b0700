"""The faults of a dataset as an HTML sheet with thumbnails and a table of files."""

from __future__ import annotations

import io
from base64 import b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files

import numpy as np
import numpy.typing as npt
from PIL import Image

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"

_SIDE = 96
"""Pixels a side of a thumbnail."""


@dataclass(frozen=True)
class Fault:
    """One fault of a dataset."""

    kind: str
    images: tuple[int, ...]
    """Positions of the images that it concerns."""
    words: str


def render_audit(
    title: str,
    remarks: Sequence[str],
    faults: Iterable[Fault],
    images: npt.NDArray[np.uint8],
    names: Sequence[str],
) -> str:
    """Return a page with the images of each fault.

    Args:
        title: The command that found them.
        remarks: Sentences for the top of the page.
        faults: What to show.
        images: All images, (N, C, H, W).
        names: What messages call each of them.
    """
    style = files("vggnet.report").joinpath("page.css").read_text(encoding="utf-8")
    rows = "".join(_render_fault(fault, images, names) for fault in faults)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f"<title>{escape(title)}</title><style>{style}</style></head><body>"
        f'<p class="kicker">{escape(title)}</p>'
        f"{''.join(f'<p>{escape(remark)}</p>' for remark in remarks)}"
        f"<table><tr><th>fault<th>images<th>description</tr>{rows}</table></body></html>\n"
    )


def _render_fault(fault: Fault, images: npt.NDArray[np.uint8], names: Sequence[str]) -> str:
    shown = "".join(
        f'<img alt="{escape(names[at])}" src="{_thumbnail(images[at])}">' for at in fault.images
    )
    return f"<tr><td>{escape(fault.kind)}<td>{shown}<td>{escape(fault.words)}</tr>"


def _thumbnail(pixels: npt.NDArray[np.uint8]) -> str:
    """Return an image, (C, H, W), as the address of a PNG."""
    image = Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))
    by = max(1, _SIDE // max(image.size))
    image = image.resize((by * image.width, by * image.height), Image.Resampling.NEAREST)
    image.thumbnail((_SIDE, _SIDE))
    file = io.BytesIO()
    image.save(file, "PNG")
    return f"data:image/png;base64,{b64encode(file.getvalue()).decode('ascii')}"
