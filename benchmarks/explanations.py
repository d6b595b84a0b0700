"""Measure how faithful explanations are: deletion and insertion curves (arXiv 1806.07421).

    python benchmarks/explanations.py --output benchmarks/results/explanations

Deletion removes the pixels with the most evidence first, and a good explanation makes the
probability of the predicted class fall fast: a small area under the curve. Insertion adds them to
an empty image first: a large area. Removed pixels get the color of the image's edge.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from calibration import load_or_train
from measuring import build_parser, render_machine, write_report

import vggnet
from vggnet.data.storage import load_dataset
from vggnet.inference.explain import Heat, Pixels, edge_color, grad_cam, occlude

STEPS = 28
"""Points of a curve after its first."""

Method = Callable[[vggnet.Classifier, Pixels, int], Heat]


def build_methods(patches: Sequence[int], seed: int = 0) -> dict[str, Method]:
    """Return the ways to order an image's pixels."""
    generator = np.random.default_rng(seed)

    def occlusion(patch: int) -> Method:
        return lambda model, image, index: occlude(model, image, index, patch)

    def random(model: vggnet.Classifier, image: Pixels, index: int) -> Heat:
        return generator.random(image.shape[1:], dtype=np.float32)

    return {
        **{f"occlusion, {patch}×{patch}": occlusion(patch) for patch in patches},
        "Grad-CAM, mean of stages": lambda *given: np.mean(grad_cam(*given), axis=0),
        "Grad-CAM, first stage": lambda *given: grad_cam(*given)[0],
        "Grad-CAM, last stage": lambda *given: grad_cam(*given)[-1],
        "brightest pixels": lambda model, image, index: image.mean(axis=0, dtype=np.float32),
        "random": random,
    }


def areas(model: vggnet.Classifier, image: Pixels, index: int, heat: Heat) -> tuple[float, float]:
    """Return the areas under the deletion and the insertion curve of one image, 0 to 1."""
    ranks = np.empty(heat.size, np.int64)
    ranks[np.argsort(-heat.ravel(), kind="stable")] = np.arange(heat.size)
    counts = np.linspace(0, heat.size, STEPS + 1).round()
    first = (ranks < counts[:, np.newaxis]).reshape(-1, 1, *heat.shape)
    empty = edge_color(image)
    copies = np.concatenate([np.where(first, empty, image), np.where(first, image, empty)])
    shares = model.predict(copies).probabilities[:, index]
    deletion, insertion = (np.trapezoid(curve) / STEPS for curve in np.split(shares, 2))
    return float(deletion), float(insertion)


def interval(values: npt.NDArray[np.float64]) -> str:
    """Render a mean with its 95 % bootstrap interval over the images."""
    generator = np.random.default_rng(0)
    means = values[generator.integers(0, len(values), (2_000, len(values)))].mean(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return f"{values.mean():.3f} ({low:.3f} to {high:.3f})"


def render(found: dict[str, list[tuple[float, float]]], options: argparse.Namespace) -> str:
    """Render the report; the first method is the one that the others are compared with."""
    values = {name: np.array(one) for name, one in found.items()}
    first, *_ = values
    rows = ""
    for name, one in values.items():
        better = [one[:, 0] - values[first][:, 0], values[first][:, 1] - one[:, 1]]
        cells = [interval(one[:, 0]), interval(one[:, 1])]
        cells += ["–" if name == first else interval(gain) for gain in better]
        rows += f"| {name} | {' | '.join(cells)} |\n"
    return f"""# Faithfulness of explanations

Recipe `fast` on {options.dataset}, {options.count} {options.split} images; mean area with its \
95 % bootstrap interval over the images. Deletion: smaller is better; insertion: larger is better. \
The last two columns: by how much {first} is better on the same images.

| order of pixels | deletion | insertion | deletion, gain | insertion, gain |
|---|---|---|---|---|
{rows}
{render_machine()}"""


def main() -> None:
    parser = build_parser(__doc__)
    parser.add_argument("--dataset", default="mnist")
    parser.add_argument("--split", choices=("train", "test"), default="test")
    parser.add_argument("--count", type=int, default=500, help="images")
    parser.add_argument("--patches", type=int, nargs="+", default=[5], help="sizes of patches")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder for the model")
    options = parser.parse_args()
    options.runs.mkdir(parents=True, exist_ok=True)
    model = load_or_train("fast", options.dataset, 0, options.runs)
    images = getattr(load_dataset(options.dataset), options.split).images
    images = images[:: len(images) // options.count][: options.count]
    methods = build_methods(options.patches)
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in methods}
    for image, index in zip(images, model.predict(images).indices.tolist(), strict=True):
        for name, method in methods.items():
            found[name].append(areas(model, image, index, method(model, image, index)))
    figures: dict[str, Any] = {"areas": found}
    write_report(options.output, render(found, options), figures)


if __name__ == "__main__":
    main()
