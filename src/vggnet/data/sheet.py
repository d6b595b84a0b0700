"""A dataset as a notebook shows it: for each class its name, its counts and a few images."""

from __future__ import annotations

import base64
import io
from html import escape

import numpy as np
import numpy.typing as npt
from PIL import Image

from vggnet.data.dataset import Dataset, LabeledImages

MOST_CLASSES = 20
_COLUMNS = 12
_LARGEST_SIDE = 48
"""Pixels of an image in the sheet; smaller ones keep their size, larger ones are reduced."""


def render_dataset(dataset: Dataset) -> str:
    """Return HTML: a line about the dataset, and a row of training images of each class."""
    splits = [("training", dataset.train), ("test", dataset.test)]
    if dataset.validation:
        splits.append(("validation", dataset.validation))
    counts = [np.bincount(one.labels, minlength=len(dataset.classes)) for _, one in splits]
    head = "".join(f"<th>{name}</th>" for name, _ in splits)
    rows = [
        f"<tr><td>{escape(name)}</td>"
        + "".join(f"<td>{count[label]:,}</td>" for count in counts)
        + f"<td>{_draw_row(dataset.train, label)}</td></tr>"
        for label, name in enumerate(dataset.classes[:MOST_CLASSES])
    ]
    hidden = len(dataset.classes) - MOST_CLASSES
    more = f"<p>and {hidden:,} more classes</p>" if hidden > 0 else ""
    return (
        f"<p>{escape(repr(dataset))}</p><table><tr><th>class</th>{head}"
        f"<th>training images</th></tr>{''.join(rows)}</table>{more}"
    )


def _draw_row(examples: LabeledImages, label: int) -> str:
    """Return the first images of a class side by side, as an `<img>` with its data inside."""
    places = np.flatnonzero(examples.labels == label)[:_COLUMNS]
    if not len(places):
        return "none"
    tiles = [_draw_tile(image) for image in examples.images[places]]
    side, gap = tiles[0].height, 2
    row = Image.new("RGB", (sum(one.width + gap for one in tiles), side), "white")
    for number, tile in enumerate(tiles):
        row.paste(tile, (number * (tile.width + gap), 0))
    file = io.BytesIO()
    row.save(file, "PNG")
    data = base64.b64encode(file.getvalue()).decode()
    return f'<img alt="" style="max-width:100%" src="data:image/png;base64,{data}">'


def _draw_tile(image: npt.NDArray[np.uint8]) -> Image.Image:
    if len(image) in (1, 2):  # grey, or grey and something else
        tile = Image.fromarray(image[0])
    else:
        tile = Image.fromarray(np.ascontiguousarray(image[:3].transpose(1, 2, 0)))
    tile.thumbnail((_LARGEST_SIDE, _LARGEST_SIDE))
    return tile
