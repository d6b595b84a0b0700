"""`vggnet predict`: classify images."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vggnet.cli import model_options as options
from vggnet.cli.options import option_groups
from vggnet.cli.predictions import FORMATS, MOST_EXPLAINED, Sheet, render_numbered
from vggnet.cli.terminal import printable, say, warn
from vggnet.errors import ConfigError, ImageError

if TYPE_CHECKING:
    from vggnet.data.matching import TrainedOn
    from vggnet.inference.read import FileResult, Inputs
    from vggnet.inference.reading import Reading

_MANY = 32
"""Images from which on the start of compiled kernels pays off."""


@option_groups
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
    *,
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
        bool,
        typer.Option("--split", help="Read each image as a row of digits that do not touch."),
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
            help="Draw heat maps of the evidence for the predictions to this PNG file; at most "
            f"{MOST_EXPLAINED} predictions."
        ),
    ] = None,
    reject: options.Reject = None,
    given: options.ModelOptions,
    force: options.Force = False,
    device: options.Device = "auto",
    threads: options.Threads = None,
) -> None:
    """Classify images: digits in any style, or whatever the model was trained on.

    Works for dark ink on light paper and the reverse. Data files give one prediction for each
    row. An image that cannot be read is reported at the end; the others are classified.
    """
    from vggnet.artifacts.outputs import PNG, check_outputs
    from vggnet.data.progress import track
    from vggnet.engine.device import computing
    from vggnet.inference.predict import Classifier
    from vggnet.inference.read import find_inputs, predict_items

    if split and not prepare:
        raise ConfigError("--split and --no-prepare exclude each other")
    names = _read_columns(columns, style, split)
    inputs = find_inputs(images)
    warn(*inputs.warnings)
    # A few images are classified before compiled kernels are loaded.
    kernels = "torch" if len(inputs.items) < _MANY else "auto"
    classifier = Classifier(given.load(model), device, kernels)
    rate = options.read_reject(reject, {model: classifier.card})
    read = [*given.inputs(model), *images, *(Path(item.path) for item in inputs.items)]
    check_outputs([(path, PNG) for path in (show, explain) if path], read, force)
    reading = _choose_reading(classifier.trained_on, prepare, split)
    bit_depth = _choose_bit_depth(inputs, classifier.trained_on)

    problems: list[str] = []
    sheet = Sheet(rate)
    with computing("fp32", threads):
        results = predict_items(classifier, inputs.items, reading, top, bit_depth)
        if not sys.stdout.isatty():  # on a terminal, the predictions show the progress
            results = track(results, "predicting", len(inputs.items))
        results = _set_aside_problems(results, problems)
        if show or explain:
            results = sheet.collect(results)
        lines = render_numbered(results, names) if names else FORMATS[style](results, split, rate)
        for line in lines:
            print(line if style == "csv" else printable(line))
        for problem in problems:
            say(problem, error=True)
        if show:
            sheet.draw(show)
        if explain:
            sheet.explain(explain, classifier)
    if problems:
        raise typer.Exit(ImageError.exit_code)


def _set_aside_problems(results: Iterable[FileResult], problems: list[str]) -> Iterator[FileResult]:
    """Yield the images that could be read, and add a message for each of the others."""
    for result in results:
        if result.problem:
            problems.append(f"vggnet: cannot read {result.path}: {result.problem}")
        else:
            yield result


def _choose_reading(trained_on: TrainedOn, prepare: bool, split: bool) -> Reading:
    """Return how to prepare the images.

    Raises:
        ConfigError: Rows are to be split, for a model that was not trained on characters.
    """
    from vggnet.inference.read import choose_reading
    from vggnet.inference.reading import Reading

    reading = choose_reading(trained_on) if prepare else Reading.AS_IT_IS
    if split and reading is not Reading.DRAWN:
        raise ConfigError(
            "--split reads rows of characters, and this model was not trained on characters in "
            "MNIST's form: 28×28 pixels in grey, each class named by one character"
        )
    return Reading.ROW if split else reading


def _choose_bit_depth(inputs: Inputs, trained_on: TrainedOn) -> int | None:
    """Return the bits that count as the full range, and say so if the model does not decide it."""
    from vggnet.inference.read import choose_bit_depth

    bit_depth = choose_bit_depth(inputs, trained_on)
    if bit_depth and bit_depth != trained_on.bit_depth:
        warn(f"of images with more than 8 bits, {2**bit_depth - 1:,} counts as white")
    return bit_depth


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
