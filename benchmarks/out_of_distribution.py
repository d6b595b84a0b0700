"""Measure which images a model flags as unlike its training images, beside simpler scores.

    python benchmarks/out_of_distribution.py --output benchmarks/results/out_of_distribution

The score and its settings were chosen with `--half tune`: Fashion-MNIST's training images, and
fonts and random numbers that the other half does not contain. Models of recipe `fast` on MNIST are
kept in `--runs` and are not trained again.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from calibration import load_or_train
from measuring import build_parser, render_machine, render_spread, write_report
from unlike_digits import (
    ALSO_SIMILAR,
    DIGIT_SHAPED,
    Half,
    Pixels,
    draw_letters,
    find_fonts,
    prepare,
    unlike_digits,
)

import vggnet
from vggnet.data.storage import load_dataset
from vggnet.inference.predictions import DEFAULT_REJECT

Scores = npt.NDArray[np.floating]

SCORES = ("typicality", "largest probability", "largest logit", "energy")
"""The last two: arXiv 1911.11132 and 2010.03759."""


def score(model: vggnet.Classifier, images: Pixels) -> dict[str, Scores]:
    """Return each score, (N,): higher is less like the training images."""
    found, logits = model.predict(images), model.logits(images)
    assert found.typicality is not None
    values = (
        *(found.typicality, found.probabilities.max(axis=1)),
        *(logits.amax(1).numpy(), logits.logsumexp(1).numpy()),
    )
    return {name: -one for name, one in zip(SCORES, values, strict=True)}


def load_kinds(half: Half) -> dict[str, Pixels]:
    """Return the images that are no digits, by kind."""
    fashion = load_dataset("fashion-mnist")
    split = fashion.test if half == "test" else fashion.train
    return {
        "Fashion-MNIST": split.images[:2_000],
        **unlike_digits(half),
        f"letters {ALSO_SIMILAR}": prepare(draw_letters(half, ALSO_SIMILAR)),
    }


def auroc(digits: Scores, others: Scores) -> float:
    """Return the probability that another image scores higher than a digit; ties count half."""
    ordered = np.sort(digits)
    below = np.searchsorted(ordered, others, "left") + np.searchsorted(ordered, others, "right")
    return float(below.mean() / 2 / len(digits))


def measure(seed: int, kinds: dict[str, Pixels], options: argparse.Namespace) -> list[Any]:
    """Return the figures of one model, for each score and kind."""
    model = load_or_train("fast", "mnist", seed, options.runs)
    digits = score(model, load_dataset("mnist").test.images)
    found = {kind: score(model, images) for kind, images in kinds.items()}
    rows = []
    for name in SCORES:
        # Typicality comes with its threshold; the others get the one that they would need.
        limit = -DEFAULT_REJECT if name == "typicality" else np.quantile(digits[name], 0.99)
        flagged = {"digits": digits, **found}
        rows.append(
            {
                "seed": seed,
                "score": name,
                "flagged": {
                    kind: float((one[name] > limit).mean()) for kind, one in flagged.items()
                },
                "auroc": {kind: auroc(digits[name], one[name]) for kind, one in found.items()},
            }
        )
    return rows


def render_table(rows: Sequence[dict[str, Any]], figure: str, kinds: Sequence[str]) -> str:
    """Render one line for each score."""
    text = f"| score | {' | '.join(kinds)} |\n|---|{'---|' * len(kinds)}\n"
    for name in SCORES:
        chosen = [row[figure] for row in rows if row["score"] == name]
        cells = [render_spread([100 * row[kind] for row in chosen], 1) for kind in kinds]
        text += f"| {name} | {' | '.join(cells)} |\n"
    return text


def render(rows: Sequence[dict[str, Any]], kinds: dict[str, Pixels], half: Half) -> str:
    """Render the report."""
    fonts = find_fonts(half)
    counts = ", ".join(f"{len(images):,} {kind}" for kind, images in kinds.items())
    return f"""# Images that are no digits

Recipe `fast` on MNIST, {len(rows) // len(SCORES)} seeds; median (lowest to highest) in %. Images: \
{counts}; and the 10,000 test digits. Letters: all but {", ".join(DIGIT_SHAPED)}, in {len(fonts)} \
fonts at three angles. Everything but Fashion-MNIST went through the preparation of `predict`.

## Flagged

`typicality` at the default rate of {100 * DEFAULT_REJECT:g} %, by training images that the run \
did not reach; the other scores at the threshold that flags exactly 1 % of these digits.

{render_table(rows, "flagged", ["digits", *kinds])}
## Area under the ROC curve

{render_table(rows, "auroc", list(kinds))}
- fonts: {", ".join(path.stem for path in fonts)}
{render_machine()}"""


def main() -> None:
    parser = build_parser(__doc__)
    parser.add_argument("--half", choices=("tune", "test"), default="test")
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder for the models")
    options = parser.parse_args()
    options.runs.mkdir(parents=True, exist_ok=True)
    kinds = load_kinds(options.half)
    rows = [row for seed in range(options.seeds) for row in measure(seed, kinds, options)]
    write_report(options.output, render(rows, kinds, options.half), {"rows": rows})


if __name__ == "__main__":
    main()
