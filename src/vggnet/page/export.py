"""`.html`: the page and a network in one file, which needs no server and no connection."""

from __future__ import annotations

import json
from base64 import b64encode
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vggnet.artifacts.export.checked import write_checked
from vggnet.artifacts.export.evidence import IMAGES, choose_pixels, every_nth
from vggnet.artifacts.export.program import (
    TOLERANCE,
    EndToEndModel,
    eager_program,
    run_batches,
    score,
)
from vggnet.artifacts.export.quantize import round_weights
from vggnet.data.dataset import Dataset
from vggnet.errors import ExportError
from vggnet.page.bundle import bundle, read_part
from vggnet.page.measure import classify, find_runtime
from vggnet.page.payload import build_payload, count_products

MOST_WEIGHTS = 20_000_000
"""In 8 bits a file of 27 MB, which a browser opens in seconds."""

MOST_LOSS = 0.0002
"""Accuracy, 0 to 1, that weights of 8 bits may cost; else they have 16."""

_PRODUCTS = 1e11
"""Multiplications of all images that are measured: about a minute."""

_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:; worker-src blob:; base-uri 'none'; form-action 'none'"
)


@dataclass(frozen=True)
class ExportedPage:
    """What an exported page computes, compared with the network."""

    bits: int
    """Of a weight."""
    runtime: str | None
    """What ran the page's script; None if there is nothing that could."""
    images: int
    """On which the script ran."""
    worst: float | None
    """Largest difference between two probabilities of the script and of PyTorch, with the same
    weights on both sides."""
    accuracy_float: float | None
    """On those images, 0 to 1, before the weights were rounded; None without a dataset."""
    accuracy_page: float | None
    """The same for the page's script, with rounded weights."""
    same: int | None
    """Images with the class that the network predicts with its weights in float."""


def export_page(
    model: EndToEndModel, path: Path, dataset: Dataset | None, drawn: bool
) -> ExportedPage:
    """Write a page with a network inside, and keep it if its script computes the same.

    Args:
        model: The network and its description.
        path: The file.
        dataset: Its test images measure.
        drawn: Whether the network's images are characters, redrawn in MNIST's style.

    Raises:
        ExportError: The network is too large, or the script computes something else.
        OutputError: The file cannot be written; an existing file is unchanged.
    """
    count = sum(one.numel() for one in model.network.parameters())
    if count > MOST_WEIGHTS:
        raise ExportError(
            f"the network has {count:,} weights; a page holds at most {MOST_WEIGHTS:,}. Train a "
            "smaller one with --width, or use --format onnx"
        )
    bits = choose_bits(model, dataset)
    return write_checked(
        path,
        lambda made: made.write_text(render_page(model, drawn, bits), encoding="utf-8"),
        lambda made: _measure(made, model, bits, dataset),
    )


def choose_bits(model: EndToEndModel, dataset: Dataset | None) -> int:
    """Return 8 if the accuracy on the whole test set allows it, else 16; also without a dataset."""
    if dataset is None:
        return 16
    before, _ = score(eager_program(model), dataset.test)
    after, _ = score(eager_program(round_weights(model, 8)), dataset.test)
    return 8 if before - after <= MOST_LOSS else 16


def render_page(model: EndToEndModel, drawn: bool, bits: int) -> str:
    """Return the page: index.html with all that it loads inside."""
    payload = json.dumps(build_payload(model, drawn, bits)).replace("<", "\\u003c")
    icon = b64encode(read_part("icon.svg").encode()).decode()
    # Once each, so that nothing of the inserted text is replaced again.
    parts = {
        '<meta charset="utf-8">': '<meta charset="utf-8">\n<meta name="generator" content="vggnet">'
        f'\n<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<link rel="stylesheet" href="page.css">': f"<style>\n{read_part('page.css')}</style>",
        '<script type="module" src="page.js"></script>': "",
        "</body>": f'<script id="model-data" type="application/json">{payload}</script>\n'
        f'<script id="worker-source" type="text/plain">\n{bundle("worker")}\n</script>\n'
        f"<script>\n{bundle('page')}\n</script>\n</body>",
    }
    page = read_part("index.html").replace("icon.svg", f"data:image/svg+xml;base64,{icon}")
    for place, content in parts.items():
        before, found, after = page.partition(place)
        assert found, place
        page = before + content + after
    return page


def _measure(page: Path, model: EndToEndModel, bits: int, dataset: Dataset | None) -> ExportedPage:
    """Compare the script of a written page with the network."""
    runtime = find_runtime()
    if runtime is None:
        return ExportedPage(bits, None, 0, None, None, None, None)
    most = max(1, min(IMAGES, int(_PRODUCTS / count_products(model.network))))
    pixels, source = choose_pixels(dataset, model.card.image_shape)
    pixels = every_nth(pixels, most)
    found = classify(page, pixels, runtime)
    network = run_batches(eager_program(model), pixels, 128).probabilities
    rounded = run_batches(eager_program(round_weights(model, bits)), pixels, 128).probabilities
    worst = float(np.abs(found - rounded).max())
    if not worst <= TOLERANCE:
        raise ExportError(
            f"the page's script differs from the network by up to {worst:.2g} in a probability "
            f"(limit {TOLERANCE:.0e}) on {source}; nothing was written"
        )
    same = int((found.argmax(1) == network.argmax(1)).sum())
    if not dataset:
        return ExportedPage(bits, runtime.name, len(pixels), worst, None, None, same)
    labels = every_nth(every_nth(dataset.test.labels, IMAGES), most)
    before, after = (float((one.argmax(1) == labels).mean()) for one in (network, found))
    return ExportedPage(bits, runtime.name, len(pixels), worst, before, after, same)
