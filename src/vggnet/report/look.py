"""What a network looks at, as one HTML page that a teacher can print."""

from __future__ import annotations

import base64
import io
from html import escape

import numpy as np
import numpy.typing as npt
from PIL import Image

from vggnet.artifacts.evidence_plot import to_rgb
from vggnet.inference.look import Field, Pixels, StageView, View

_MAPS = 32
"""Feature maps of each stage on the page, the strongest first."""

_FILTERS = 64

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"

_STYLE = """
:root { font: 16px/1.5 system-ui, sans-serif; color: #1b1c22; background: #fff }
body { margin: 0 auto; max-width: 1080px; padding: 20px }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0 0 .3em }
h2 { font-size: 1.15rem; margin: 1.8em 0 .2em; break-after: avoid }
p { margin: .2em 0 .8em; max-width: 46em; color: #4a4c55 }
.tiles { display: grid; gap: 4px; grid-template-columns: repeat(auto-fill, minmax(52px, 1fr)) }
.small { grid-template-columns: repeat(auto-fill, minmax(36px, 1fr)) }
.tile { position: relative; break-inside: avoid }
.tile img { display: block; width: 100%; image-rendering: pixelated; outline: 1px solid #dededa }
.box { position: absolute; border: 2px solid #d55e00; box-sizing: border-box }
.rows { display: grid; gap: 8px 28px; grid-template-columns: repeat(auto-fill, minmax(300px, 1fr)) }
.row { display: flex; gap: 4px; align-items: center; break-inside: avoid }
.row span { flex: 0 0 3.2em; font-size: .8125rem; color: #63656f }
.row .tile { flex: 1; overflow: hidden }
.fields { display: grid; gap: 12px; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)) }
figure { margin: 0; break-inside: avoid } figcaption { font-size: .875rem }
.fields .tile { overflow: hidden }
@page { margin: 12mm }
"""


def render_look(view: View, others: Pixels | None, title: str, source: str) -> str:
    """Return the page.

    Args:
        view: What to show.
        others: The images whose numbers are in `view`, (N, C, H, W).
        title: The command, which begins with "vggnet".
        source: What to call `others`.
    """
    sections = [
        f'<p class="kicker">{escape(title)}</p>',
        "<h1>What the network looks at</h1>",
        f"<p>The image is predicted as <b>{escape(view.label)}</b>.</p>",
        _render_fields(view),
        _render_filters(view),
    ]
    for number, stage in enumerate(view.stages, 1):
        sections.append(_render_maps(stage, number))
        if others is not None and stage.top_activations:
            sections.append(_render_activating(view, stage, others, source))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>"
        f"{''.join(sections)}</body></html>\n"
    )


def _render_fields(view: View) -> str:
    figures = []
    for number, stage in enumerate(view.stages, 1):
        _, row, column = np.unravel_index(int(stage.maps.argmax()), stage.maps.shape)
        tile = _tile(to_rgb(view.image), _box(view, stage.field, int(row), int(column)))
        size = stage.field.size
        figures.append(
            f"<figure>{tile}<figcaption>stage {number}: {size}×{size} pixels</figcaption></figure>"
        )
    return (
        "<h2>Receptive fields</h2><p>Each value at the end of a stage depends on the pixels in a "
        "square. The square of the largest value is drawn on the image; what is outside of the "
        f'image is padding.</p><div class="fields">{"".join(figures)}</div>'
    )


def _render_filters(view: View) -> str:
    filters = view.filters[:_FILTERS]
    shown = filters if filters.shape[1] == 3 else filters.mean(axis=1, keepdims=True)
    most = np.abs(shown).max(axis=(1, 2, 3), keepdims=True).clip(1e-12)
    pixels = (127.5 + 127.5 * shown / most).astype(np.uint8)
    tiles = "".join(_tile(np.moveaxis(np.broadcast_to(one, (3, *one.shape[1:])), 0, -1))
                    for one in pixels)  # fmt: skip
    return (
        f"<h2>First layer: {len(view.filters)} filters</h2><p>Each filter is compared with every "
        "place of the image. Grey is zero, white positive, black negative; in color, each channel "
        f'has its own.</p><div class="tiles small">{tiles}</div>'
    )


def _render_maps(stage: StageView, number: int) -> str:
    channels, side, _ = stage.maps.shape
    strongest = np.argsort(-stage.maps.max(axis=(1, 2)), kind="stable")[:_MAPS]
    tiles = "".join(_tile(_shade(stage.maps[channel])) for channel in strongest)
    return (
        f"<h2>Stage {number}: {channels} channels of {side}×{side}</h2><p>Where each channel finds "
        f"its pattern in the image, darker is more. The {len(strongest)} strongest channels.</p>"
        f'<div class="tiles">{tiles}</div>'
    )


def _render_activating(view: View, stage: StageView, others: Pixels, source: str) -> str:
    rows = []
    for one in stage.top_activations:
        tiles = "".join(
            _tile(to_rgb(others[image]), _box(view, stage.field, *place))
            for image, place in zip(one.images, one.places, strict=True)
        )
        rows.append(f'<div class="row"><span>no. {one.channel}</span>{tiles}</div>')
    return (
        f"<p>The maximally activating images of some of these channels, from {escape(source)}, and "
        f'where.</p><div class="rows">{"".join(rows)}</div>'
    )


def _box(view: View, field: Field, row: int, column: int) -> str:
    """Return the style of a receptive field's square, in percent of the image."""
    height, width = view.image.shape[1:]
    left, top, side = field.box(row, column, view.margin)
    right, bottom = min(left + side, width), min(top + side, height)
    left, top = max(left, 0.0), max(top, 0.0)
    return (
        f"left:{100 * left / width:.1f}%;top:{100 * top / height:.1f}%;"
        f"width:{100 * (right - left) / width:.1f}%;height:{100 * (bottom - top) / height:.1f}%"
    )


def _shade(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Return a map as grey pixels, (S, S, 3), the largest value black."""
    share = values / max(float(values.max()), 1e-12)
    return np.repeat((255 - 255 * share.clip(0, 1)).astype(np.uint8)[..., np.newaxis], 3, axis=2)


def _tile(pixels: npt.NDArray[np.uint8], box: str | None = None) -> str:
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, "PNG")
    text = base64.b64encode(file.getvalue()).decode()
    square = f'<i class="box" style="{box}"></i>' if box else ""
    return f'<div class="tile"><img alt="" src="data:image/png;base64,{text}">{square}</div>'
