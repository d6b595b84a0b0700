"""`vggnet predict`: classify images."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from vggnet.cli import model_options as options
from vggnet.cli.terminal import printable, say, warn
from vggnet.errors import ConfigError, ImageError

if TYPE_CHECKING:
    from vggnet.inference.predict import Classifier
    from vggnet.inference.predictions import Prediction
    from vggnet.inference.read import FileResult

NOTHING = "nothing drawn"

UNLIKE = "unlike the training images"

_MANY = 32
"""Images from which on the start of compiled kernels pays off."""

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""How a cell begins that spreadsheets take for a formula."""

_MOST_EXPLAINED = 20
"""Predictions on the sheet of `--explain`; each takes a tenth of a second, or seconds at 224 px."""

_MOST_SHOWN = 400
"""Images, or digits of rows, on the sheet of `--show`; viewers do not open larger ones."""


def predict(
    model: options.ModelFile,
    images: Annotated[
        list[Path],
        typer.Argument(
            help="Image files, folders or zips of them, files of digits (CSV, NPZ, IDX, Parquet), "
            "or - for standard input.",
            metavar="IMAGE...",
            readable=False,  # an unreadable file is reported with the predictions
        ),
    ],
    top: Annotated[int, typer.Option(min=1, help="Number of classes to print for each.")] = 3,
    style: Annotated[
        Literal["table", "csv", "json"], typer.Option("--format", help="Format of the output.")
    ] = "table",
    columns: Annotated[
        str | None,
        typer.Option(
            metavar="ID,CLASS",
            help="With --format csv: print only the number of the image, from 1, and the class, "
            "under these names. Kaggle's digit recognizer takes ImageId,Label.",
        ),
    ] = None,
    split: Annotated[
        bool, typer.Option("--split", help="Read a row of digits that do not touch each other.")
    ] = False,
    prepare: Annotated[
        bool,
        typer.Option(
            "--prepare/--no-prepare",
            help="Redraw digits in MNIST's style, or use the pixels as they are.",
        ),
    ] = True,
    show: Annotated[
        Path | None,
        typer.Option(help="Draw the network's inputs and the predictions to this PNG file."),
    ] = None,
    explain: Annotated[
        Path | None,
        typer.Option(
            help="Draw where the evidence for the predictions lies, to this PNG file; at most "
            f"{_MOST_EXPLAINED} predictions."
        ),
    ] = None,
    reject: options.Reject = None,
    mean: options.Mean = None,
    std: options.Std = None,
    image_size: options.ModelImageSize = None,
    classes: options.Classes = None,
    force: options.Force = False,
    device: options.Device = "auto",
    threads: options.Threads = None,
) -> None:
    """Classify images: digits in any style, or whatever the model was trained on.

    Works for dark ink on light paper and the reverse. Data files give one prediction for each
    row. An image that cannot be read is reported at the end; the others are classified.
    """
    from vggnet.artifacts.model_file import load_model
    from vggnet.artifacts.outputs import PNG, check_output
    from vggnet.data.progress import track
    from vggnet.engine.device import computing
    from vggnet.engine.processor import usable_cores
    from vggnet.inference.predict import Classifier
    from vggnet.inference.read import (
        choose_bit_depth,
        choose_reading,
        find_inputs,
        predict_items,
    )
    from vggnet.inference.reading import Reading

    if split and not prepare:
        raise ConfigError("--split and --no-prepare exclude each other")
    names = _read_columns(columns, style, split)
    inputs = find_inputs(images)
    for warning in inputs.warnings:
        warn(warning)
    # A few images are classified before compiled kernels are loaded.
    kernels = "torch" if len(inputs.items) < _MANY else "auto"
    overrides = options.read_overrides(mean, std, image_size, classes)
    classifier = Classifier(load_model(model, overrides), device, kernels)
    rate = options.read_reject(reject, {model: classifier.card})
    read = [*options.input_files(model, classes), *images]
    read += [Path(item.path) for item in inputs.items]
    for output in filter(None, (show, explain)):
        check_output(output, PNG, read, force)
        read.append(output)
    reading = choose_reading(classifier.trained_on) if prepare else Reading.AS_IT_IS
    if split and reading is not Reading.DRAWN:
        raise ConfigError(
            "--split reads rows of characters, and this model was not trained on characters in "
            "MNIST's form: 28×28 pixels in grey, each class named by one character"
        )
    bit_depth = choose_bit_depth(inputs, classifier.trained_on)
    if bit_depth and bit_depth != classifier.trained_on.bit_depth:
        warn(f"of images with more than 8 bits, {2**bit_depth - 1:,} counts as white")
    sheet = _Sheet(rate)
    problems: list[str] = []

    def results() -> Iterator[FileResult]:
        chosen = Reading.ROW if split else reading
        found = predict_items(classifier, inputs.items, chosen, top, bit_depth)
        if not sys.stdout.isatty():  # on a terminal, the predictions show the progress
            found = track(found, "predicting", len(inputs.items))
        for result in found:
            if result.problem:
                problems.append(f"vggnet: cannot read {result.path}: {result.problem}")
                continue
            if show or explain:
                sheet.add(result)
            yield result

    with computing("fp32", threads or usable_cores()):
        lines = _as_numbered(results(), names) if names else _FORMATS[style](results(), split, rate)
        for line in lines:
            print(line if style == "csv" else printable(line))
    for problem in problems:
        say(problem, error=True)
    if show:
        sheet.write(show)
    if explain:
        with computing("fp32", threads or usable_cores()):
            sheet.explain(explain, classifier)
    if problems:
        raise typer.Exit(ImageError.exit_code)


def _read_columns(columns: str | None, style: str, split: bool) -> tuple[str, str] | None:
    """Return the two names of `--columns`.

    Raises:
        ConfigError: There are not two, or the format has no such columns.
    """
    if columns is None:
        return None
    names = [name.strip() for name in columns.split(",")]
    if len(names) != 2 or not all(names):
        raise ConfigError(f"--columns takes two names, as in ImageId,Label, not {columns!r}")
    if style != "csv" or split:
        raise ConfigError("--columns goes with --format csv, and not with --split")
    return names[0], names[1]


def _flag(one: Prediction, rate: float) -> str:
    """Return the mark of an image that is unlike the training images; else nothing."""
    return f"  ({UNLIKE})" if one.is_unlike_training(rate) else ""


def _as_table(results: Iterable[FileResult], split: bool, rate: float) -> Iterator[str]:
    for result in results:
        if not result.predictions:
            yield f"{result.path}  {NOTHING}"
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


def _as_csv(results: Iterable[FileResult], split: bool, rate: float) -> Iterator[str]:
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


def _as_numbered(results: Iterable[FileResult], names: tuple[str, str]) -> Iterator[str]:
    yield csv_line(*names)
    for number, result in enumerate(results, 1):
        yield csv_line(number, result.predictions[0].label if result.predictions else "")


def csv_line(*cells: object) -> str:
    """Return a row of a CSV table, safe to open in a spreadsheet."""
    import csv
    import io

    file = io.StringIO()
    # A spreadsheet runs a cell that begins like a formula, unless a quote comes first.
    shown = [f"'{cell}" if str(cell).startswith(_FORMULA) else cell for cell in cells]
    csv.writer(file, lineterminator="").writerow(shown)
    return file.getvalue()


def _as_json(results: Iterable[FileResult], split: bool, rate: float) -> Iterator[str]:
    import json

    yield "["
    comma = ""
    for result in results:
        if split:
            digits = [_describe(one, rate) for one in result.predictions]
            least = result.least_confident if digits else None
            record = {"path": result.path, "number": result.number, "least_sure": least}
            yield comma + json.dumps({**record, "digits": digits})
        else:
            nothing: dict[str, Any] = {"class": None, "probability": None, "top": []}
            nothing |= {"typicality": None, "unlike_training": None}
            found = _describe(result.predictions[0], rate) if result.predictions else nothing
            yield comma + json.dumps({"path": result.path, **found})
        comma = ","
    yield "]"


def _describe(one: Prediction, rate: float) -> dict[str, Any]:
    top = [{"class": name, "probability": share} for name, share in one.top]
    return {
        "class": one.label,
        "probability": one.probability,
        "top": top,
        "typicality": one.typicality,
        "unlike_training": one.is_unlike_training(rate),
    }


_FORMATS: dict[str, Callable[[Iterable[FileResult], bool, float], Iterator[str]]] = {
    "table": _as_table,
    "csv": _as_csv,
    "json": _as_json,
}


class _Sheet:
    """The network's inputs, each with its prediction.

    Args:
        rate: Which images to flag.
    """

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._shown: list[tuple[str, Prediction]] = []
        self._count = 0

    def add(self, result: FileResult) -> None:
        """Add a file's predictions, as far as there is room."""
        name = Path(result.path).name[-18:]
        room = _MOST_SHOWN - len(self._shown)
        self._shown += [(name, one) for one in result.predictions[:room]]
        self._count += len(result.predictions)

    def write(self, path: Path) -> None:
        """Draw the sheet, and warn if it does not hold everything.

        Raises:
            OutputError: It cannot be written.
            ImageError: There is nothing to draw.
        """
        import numpy as np

        from vggnet.artifacts.plots import render_sheet

        if not self._shown:
            raise ImageError(f"nothing is drawn in any image, so {path} is not written")
        captions = [
            f"{name}\n{one.label} · {100 * one.probability:.0f} %"
            + " · unlike" * bool(one.is_unlike_training(self._rate))
            for name, one in self._shown
        ]
        images = np.stack([one.seen for _, one in self._shown])
        render_sheet(path, images, captions, "The network's inputs, and its predictions")
        if self._count > len(self._shown):
            warn(f"{path} shows the first {len(self._shown)} of {self._count:,} predictions")

    def explain(self, path: Path, classifier: Classifier) -> None:
        """Draw the evidence for the first predictions.

        Raises:
            OutputError: It cannot be written.
            ImageError: There is nothing to explain.
        """
        from vggnet.artifacts.evidence_plot import EvidenceRow, render_evidence

        if not self._shown:
            raise ImageError(f"nothing is drawn in any image, so {path} is not written")
        rows = []
        for name, one in self._shown[:_MOST_EXPLAINED]:
            found = classifier.explain(one.seen)
            maps = [(found.method, found.heat)]
            maps += [(f"stage {number}", heat) for number, heat in enumerate(found.stages, 1)]
            caption = f"{name}\n{one.label} · {100 * one.probability:.0f} %"
            rows.append(EvidenceRow(caption, one.seen, maps))
        render_evidence(path, rows)
        if self._count > len(rows):
            warn(f"{path} shows the first {len(rows)} of {self._count:,} predictions")
