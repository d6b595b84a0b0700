"""Compare ways to calibrate probabilities, on images that were not trained on and on the test set.

    python benchmarks/calibration.py --output benchmarks/results/calibration

Recipe `fast` does not reach a quarter of the training images. One part of them fits each method,
another chooses between the methods and the numbers of images; the test set confirms the choice.
Models are kept in `--runs` and are not trained again.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from measuring import build_parser, render_machine, render_spread, write_report
from torch import Tensor
from torch.nn import functional as F

import vggnet
from vggnet.data.batches import shuffled_order
from vggnet.data.dataset import Dataset, LabeledImages
from vggnet.data.storage import load_dataset
from vggnet.engine.calibration import fit_calibration
from vggnet.engine.evaluate import Evaluation

DATASETS = ("mnist", "fashion-mnist")
COUNTS = (200, 500, 1_000, 2_000, 5_000)
JUDGED = 10_000
"""Unseen training images that choose, and fit nothing."""

SHOWN = ("distance", COUNTS[-1], "test")
"""What is shown for each seed, with an interval: a method, fitted to so many images, on a split."""

Adjust = Callable[[Tensor], Tensor]


def minimize(parameters: Tensor, adjust: Adjust, logits: Tensor, labels: Tensor) -> Adjust:
    """Fit parameters by negative log-likelihood, and return `adjust`, which uses them."""
    parameters.requires_grad_()
    optimizer = torch.optim.LBFGS([parameters], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(adjust(logits), labels)
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return adjust


def fit_temperature(logits: Tensor, labels: Tensor) -> Adjust:
    """One factor for all logits (arXiv 1706.04599)."""
    factor = torch.zeros((), dtype=torch.float64)
    return minimize(factor, lambda values: values * factor.exp(), logits, labels)


def fit_vector(logits: Tensor, labels: Tensor) -> Adjust:
    """One factor and one offset for each class (arXiv 1706.04599)."""
    both = torch.zeros(2, logits.shape[1], dtype=torch.float64)
    return minimize(both, lambda values: values * both[0].exp() + both[1], logits, labels)


def fit_distance(logits: Tensor, labels: Tensor) -> Adjust:
    """Two numbers for the distances to the largest logit: what vggnet does."""
    return fit_calibration(logits.float().numpy(), labels.numpy()).adjust


METHODS: dict[str, Callable[[Tensor, Tensor], Adjust]] = {
    "none": lambda logits, labels: lambda values: values,
    "temperature": fit_temperature,
    "vector": fit_vector,
    "distance": fit_distance,
}


def load_or_train(recipe: str, dataset: str, seed: int, runs: Path) -> vggnet.Classifier:
    """Return the classifier of one seed."""
    path = runs / f"{recipe}-{dataset}-{seed}.pth"
    if not path.exists():
        vggnet.train(
            recipe=recipe,
            output=path,
            runs=runs,
            name=path.stem,
            data={"dataset": dataset},
            train={"seed": seed},
        )
    return vggnet.load(path)


def unseen_images(classifier: vggnet.Classifier, data: Dataset, seed: int) -> LabeledImages:
    """Return the training images that a run of less than one epoch did not reach."""
    train = (classifier.card.config or {})["train"]
    count = len(data.train)
    steps = round(train["epochs"] * -(-count // train["global_batch_size"]))
    unseen = shuffled_order(seed, 0, count)[steps * train["global_batch_size"] :]
    return data.train.take(unseen, "images that were not trained on")


def score(adjust: Adjust, logits: Tensor, labels: Tensor, interval: bool) -> dict[str, float]:
    """Return the figures of calibrated logits, the interval of the ECE only if asked for."""
    found = Evaluation(adjust(logits).detach().float().numpy(), labels.numpy())
    figures = {
        "accuracy": found.accuracy,
        "nll": found.loss,
        "brier": found.brier,
        "ece": found.reliability.error,
    }
    if interval:
        figures["ece_low"], figures["ece_high"] = found.reliability.error_interval()
    return figures


def measure(dataset: str, seed: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Fit every method to different numbers of images of one seed."""
    data = load_dataset(dataset)
    classifier = load_or_train(options.recipe, dataset, seed, options.runs)
    found = {}
    for name, images in (("unseen", unseen_images(classifier, data, seed)), ("test", data.test)):
        one = classifier.evaluate(images)
        found[name] = torch.from_numpy(one.logits).double(), torch.from_numpy(one.labels)
    logits, labels = found["unseen"]
    judged = logits[:JUDGED], labels[:JUDGED]
    fitted = logits[JUDGED:], labels[JUDGED:]
    rows = []
    for count in COUNTS:
        for method, fit in METHODS.items():
            adjust = fit(fitted[0][:count], fitted[1][:count])
            for split, (values, wanted) in (("held out", judged), ("test", found["test"])):
                key = {"dataset": dataset, "seed": seed, "method": method, "images": count}
                shown = (method, count, split) == SHOWN
                rows.append({**key, "split": split, **score(adjust, values, wanted, shown)})
    return rows


def render_table(rows: Sequence[dict[str, Any]], split: str) -> str:
    """Render one line for each dataset, method and number of images."""
    text = "| dataset | method | images | ECE % | NLL | Brier | accuracy % |\n"
    text += "|---|---|---|---|---|---|---|\n"
    keys = list(dict.fromkeys((row["dataset"], row["method"], row["images"]) for row in rows))
    for dataset, method, images in sorted(keys, key=lambda key: (DATASETS.index(key[0]), *key[1:])):
        if method == "none" and images != COUNTS[-1]:
            continue
        chosen = [
            row
            for row in rows
            if (row["dataset"], row["method"], row["images"], row["split"])
            == (dataset, method, images, split)
        ]
        ece = render_spread([100 * row["ece"] for row in chosen], 2)
        nll, brier = (render_spread([row[key] for row in chosen], 4) for key in ("nll", "brier"))
        accuracy = statistics.mean(100 * row["accuracy"] for row in chosen)
        shown = "–" if method == "none" else f"{images:,}"
        text += f"| {dataset} | {method} | {shown} | {ece} | {nll} | {brier} | {accuracy:.3f} |\n"
    return text


def render_intervals(rows: Sequence[dict[str, Any]]) -> str:
    """Render the test ECE of each seed with its bootstrap interval."""
    lines = [
        f"| {row['dataset']} | {row['seed']} | {100 * row['ece']:.2f} | "
        f"{100 * row['ece_low']:.2f} to {100 * row['ece_high']:.2f} |"
        for row in rows
        if (row["method"], row["images"], row["split"]) == SHOWN
    ]
    return "| dataset | seed | ECE % | 95 % interval |\n|---|---|---|---|\n" + "\n".join(lines)


def render(rows: Sequence[dict[str, Any]], options: argparse.Namespace) -> str:
    """Render the report."""
    return f"""# Calibration of recipe `{options.recipe}`

{options.seeds} seeds; median (lowest to highest). ECE: {JUDGED:,} images in 15 bins of equal mass.
Methods are fitted by negative log-likelihood to some of the training images that the run did not
reach: temperature (one number), vector (a factor and an offset for each class), distance (the
two numbers of `vggnet.engine.calibration`).

## On {JUDGED:,} other training images that the run did not reach: these chose

{render_table(rows, "held out")}
## On the test set

{render_table(rows, "test")}
With `distance` and {COUNTS[-1]:,} images, for each seed, with the basic bootstrap interval over
the test images:

{render_intervals(rows)}

{render_machine()}"""


def main() -> None:
    parser = build_parser(__doc__)
    parser.add_argument("--recipe", default="fast", help="one that takes less than an epoch")
    parser.add_argument("--datasets", nargs="+", default=list(DATASETS))
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder for the models")
    options = parser.parse_args()
    options.runs.mkdir(parents=True, exist_ok=True)
    rows = [
        row
        for dataset in options.datasets
        for seed in range(options.seeds)
        for row in measure(dataset, seed, options)
    ]
    write_report(options.output, render(rows, options), {"rows": rows})


if __name__ == "__main__":
    main()
