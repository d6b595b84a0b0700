"""What `vggnet predict` prints and draws."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vggnet.cli.terminal import csv_line, warn
from vggnet.errors import ImageError

if TYPE_CHECKING:
    from vggnet.inference.predict import Classifier
    from vggnet.inference.predictions import Prediction
    from vggnet.inference.read import FileResult

MOST_EXPLAINED = 20
"""Predictions that a sheet explains; each takes a tenth of a second, or seconds at 224 px."""

_MOST_SHOWN = 400
"""Predictions on a sheet; viewers do not open larger ones."""


def render_table(results: Iterable[FileResult], split: bool, rate: float) -> Iterator[str]:
    """Yield a line per image, for people.

    Args:
        results: Predictions without problems.
        split: Whether each image is a row of digits.
        rate: Which images to flag as unlike the training images.
    """
    for result in results:
        if not result.predictions:
            yield f"{result.path}  nothing drawn"
        elif split:
            one = result.predictions[result.least_confident]
            yield (
                f"{result.path}  {result.number}  (lowest confidence: digit "
                f"{result.least_confident + 1}, {one.label}, {100 * one.probability:.1f} %)"
                + _flag(result.least_typical, rate)
            )
        else:
            (one,) = result.predictions
            shares = "  ".join(f"{name} {100 * share:.1f} %" for name, share in one.top)
            yield f"{result.path}  {shares}{_flag(one, rate)}"


def _flag(one: Prediction, rate: float) -> str:
    return "  (unlike the training images)" if one.is_unlike_training(rate) else ""


def render_csv(results: Iterable[FileResult], split: bool, rate: float) -> Iterator[str]:
    """Yield the rows of a CSV table; arguments as in `render_table`."""
    names = ("number", "least_sure") if split else ("class", "probability")
    yield csv_line("path", *names, "unlike_training")
    for result in results:
        if not result.predictions:
            yield csv_line(result.path, "", "", "")
        elif split:
            lowest = result.predictions[result.least_confident].probability
            unlike = _as_cell(result.least_typical.is_unlike_training(rate))
            yield csv_line(result.path, result.number, f"{lowest:.6f}", unlike)
        else:
            (one,) = result.predictions
            unlike = _as_cell(one.is_unlike_training(rate))
            yield csv_line(result.path, one.label, f"{one.probability:.6f}", unlike)


def _as_cell(value: bool | None) -> str:
    """Return "true" or "false", or nothing if it is unknown."""
    return "" if value is None else str(value).lower()


def render_numbered(results: Iterable[FileResult], names: tuple[str, str]) -> Iterator[str]:
    """Yield the rows of a CSV table with the number of each image, from 1, and its class."""
    yield csv_line(*names)
    for number, result in enumerate(results, 1):
        yield csv_line(number, result.predictions[0].label if result.predictions else "")


def render_json(results: Iterable[FileResult], split: bool, rate: float) -> Iterator[str]:
    """Yield the lines of a JSON array; arguments as in `render_table`."""
    yield "["
    comma = ""
    for result in results:
        if split:
            digits = [_describe(one, rate) for one in result.predictions]
            least = result.least_confident if digits else None
            found = {"number": result.number, "least_sure": least, "digits": digits}
        else:
            found = _describe(result.predictions[0] if result.predictions else None, rate)
        yield comma + json.dumps({"path": result.path, **found})
        comma = ","
    yield "]"


def _describe(one: Prediction | None, rate: float) -> dict[str, Any]:
    """Return a prediction for JSON, with null for what an image without a drawing lacks."""
    return {
        "class": one and one.label,
        "probability": one and one.probability,
        "top": [{"class": name, "probability": share} for name, share in one.top] if one else [],
        "typicality": one and one.typicality,
        "unlike_training": one and one.is_unlike_training(rate),
    }


FORMATS: dict[str, Callable[[Iterable[FileResult], bool, float], Iterator[str]]] = {
    "table": render_table,
    "csv": render_csv,
    "json": render_json,
}


class Sheet:
    """The network's inputs and predictions, as far as they fit on one image.

    Args:
        rate: Which images to flag.
    """

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._shown: list[tuple[str, Prediction]] = []
        self._count = 0

    def collect(self, results: Iterable[FileResult]) -> Iterator[FileResult]:
        """Note the predictions, and yield them on."""
        for result in results:
            name = Path(result.path).name[-18:]
            room = _MOST_SHOWN - len(self._shown)
            self._shown += [(name, one) for one in result.predictions[:room]]
            self._count += len(result.predictions)
            yield result

    def draw(self, path: Path) -> None:
        """Draw the inputs and predictions.

        Raises:
            OutputError: The file cannot be written.
            ImageError: There is nothing to draw.
        """
        import numpy as np

        from vggnet.artifacts.plots import render_sheet

        self._check(path)
        captions = [
            _caption(name, one) + " · unlike" * bool(one.is_unlike_training(self._rate))
            for name, one in self._shown
        ]
        images = np.stack([one.seen for _, one in self._shown])
        render_sheet(path, images, captions, "The network's inputs, and its predictions")
        self._warn_of_rest(path, len(self._shown))

    def explain(self, path: Path, classifier: Classifier) -> None:
        """Draw the evidence for the first predictions.

        Raises:
            OutputError: The file cannot be written.
            ImageError: There is nothing to explain.
        """
        from vggnet.artifacts.evidence_plot import EvidenceRow, render_evidence

        self._check(path)
        rows = []
        for name, one in self._shown[:MOST_EXPLAINED]:
            found = classifier.explain(one.seen)
            maps = [(found.method, found.heat)]
            maps += [(f"stage {number}", heat) for number, heat in enumerate(found.stages, 1)]
            rows.append(EvidenceRow(_caption(name, one), one.seen, maps))
        render_evidence(path, rows)
        self._warn_of_rest(path, len(rows))

    def _check(self, path: Path) -> None:
        if not self._shown:
            raise ImageError(f"nothing is drawn in any image, so {path} is not written")

    def _warn_of_rest(self, path: Path, shown: int) -> None:
        if self._count > shown:
            warn(f"{path} shows the first {shown} of {self._count:,} predictions")


def _caption(name: str, one: Prediction) -> str:
    return f"{name}\n{one.label} · {100 * one.probability:.0f} %"
