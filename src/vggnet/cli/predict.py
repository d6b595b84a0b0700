"""`vggnet predict`: read images."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from vggnet.cli import options
from vggnet.cli.terminal import printable, say, warn
from vggnet.errors import ConfigError, ImageError

if TYPE_CHECKING:
    from vggnet.inference.read import Answer, Guess

NOTHING = "nothing drawn"

_MANY = 32
"""Images for which compiled kernels are worth their start."""

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""How a cell begins that spreadsheets take for a formula."""

_MOST_SHOWN = 400
"""Images, or digits of rows, on the sheet of `--show`; more than that, and nothing opens it."""


def predict(
    model: options.ModelPath,
    images: Annotated[
        list[Path],
        typer.Argument(
            help="Files, folders, or - for standard input; PNG, JPEG, WebP or BMP.",
            metavar="IMAGE...",
            readable=False,  # one that is not is a problem of its own, and no wrong usage
        ),
    ],
    top: Annotated[int, typer.Option(min=1, help="Classes to name for each.")] = 3,
    style: Annotated[
        Literal["table", "csv", "json"], typer.Option("--format", help="How to answer.")
    ] = "table",
    split: Annotated[
        bool, typer.Option("--split", help="Read a row of digits that do not touch each other.")
    ] = False,
    prepare: Annotated[
        bool,
        typer.Option(
            "--prepare/--no-prepare", help="Draw digits again as MNIST would, or take pixels as is."
        ),
    ] = True,
    show: Annotated[
        Path | None, typer.Option(help="Write what the network saw, and its answers, to this PNG.")
    ] = None,
    mean: options.Mean = None,
    std: options.Std = None,
    image_size: options.ModelImageSize = None,
    classes: options.Classes = None,
    force: options.Force = False,
    device: options.Device = "auto",
    threads: options.Threads = None,
) -> None:
    """Read images of digits, however they are drawn; or of what else a model was trained on.

    Ink is told from paper, whichever is darker, and drawn again as MNIST's digits are.
    An image that cannot be read is named at the end; the others are answered.
    """
    from vggnet.artifacts.model_file import load_model
    from vggnet.artifacts.outputs import PNG, check_output
    from vggnet.data.progress import track
    from vggnet.engine.device import computing, usable_cores
    from vggnet.inference.predict import Classifier
    from vggnet.inference.read import choose_reading, find_images, read_images
    from vggnet.inference.reading import Reading

    if split and not prepare:
        raise ConfigError("--split and --no-prepare exclude each other")
    files = find_images(images)
    # A few images are answered sooner than compiled kernels are loaded.
    kernels = "torch" if len(files) < _MANY else "auto"
    overrides = options.read_overrides(mean, std, image_size, classes)
    classifier = Classifier(load_model(model, overrides), device, kernels)
    if show:
        check_output(show, PNG, [model, *files], force)
    reading = choose_reading(classifier.learnt) if prepare else Reading.AS_IT_IS
    if split and reading is not Reading.DRAWN:
        raise ConfigError(
            "--split reads rows of characters; this model has not learnt any in MNIST's form, "
            "28×28 pixels in grey, each class named by one character"
        )
    sheet = _Sheet()
    problems: list[str] = []

    def answers() -> Iterator[Answer]:
        chosen = Reading.ROW if split else reading
        found = read_images(classifier, files, chosen, top)
        if not sys.stdout.isatty():  # there, the answers themselves show how far it is
            found = track(found, "reading", len(files))
        for answer in found:
            if answer.problem:
                problems.append(f"vggnet: cannot read {answer.path}: {answer.problem}")
                continue
            if show:
                sheet.add(answer)
            yield answer

    with computing("fp32", threads or usable_cores()):
        for line in _FORMATS[style](answers(), split):
            print(line if style == "csv" else printable(line))
    for problem in problems:
        say(problem, error=True)
    if show:
        sheet.write(show)
    if problems:
        raise typer.Exit(ImageError.exit_code)


def _as_table(answers: Iterable[Answer], split: bool) -> Iterator[str]:
    for answer in answers:
        if not answer.guesses:
            yield f"{answer.path}  {NOTHING}"
        elif split:
            guess = answer.guesses[answer.least_sure]
            yield (
                f"{answer.path}  {answer.number}  (least sure: digit {answer.least_sure + 1}, "
                f"{guess.label}, {100 * guess.probability:.1f} %)"
            )
        else:
            (guess,) = answer.guesses
            shares = "  ".join(f"{name} {100 * share:.1f} %" for name, share in guess.top)
            yield f"{answer.path}  {shares}"


def _as_csv(answers: Iterable[Answer], split: bool) -> Iterator[str]:
    import csv
    import io

    def line(*cells: str) -> str:
        file = io.StringIO()
        # A spreadsheet runs a cell that begins like a formula, unless a quote comes first.
        shown = [f"'{cell}" if cell.startswith(_FORMULA) else cell for cell in cells]
        csv.writer(file, lineterminator="").writerow(shown)
        return file.getvalue()

    yield line("path", "number" if split else "class", "least_sure" if split else "probability")
    for answer in answers:
        if not answer.guesses:
            yield line(answer.path, "", "")
        elif split:
            lowest = answer.guesses[answer.least_sure].probability
            yield line(answer.path, answer.number, f"{lowest:.6f}")
        else:
            (guess,) = answer.guesses
            yield line(answer.path, guess.label, f"{guess.probability:.6f}")


def _as_json(answers: Iterable[Answer], split: bool) -> Iterator[str]:
    import json

    yield "["
    comma = ""
    for answer in answers:
        if split:
            digits = [_describe(guess) for guess in answer.guesses]
            least = answer.least_sure if digits else None
            record = {"path": answer.path, "number": answer.number, "least_sure": least}
            yield comma + json.dumps({**record, "digits": digits})
        else:
            nothing: dict[str, Any] = {"class": None, "probability": None, "top": []}
            found = _describe(answer.guesses[0]) if answer.guesses else nothing
            yield comma + json.dumps({"path": answer.path, **found})
        comma = ","
    yield "]"


def _describe(guess: Guess) -> dict[str, Any]:
    top = [{"class": name, "probability": share} for name, share in guess.top]
    return {"class": guess.label, "probability": guess.probability, "top": top}


_FORMATS: dict[str, Callable[[Iterable[Answer], bool], Iterator[str]]] = {
    "table": _as_table,
    "csv": _as_csv,
    "json": _as_json,
}


class _Sheet:
    """What the network saw, each with its answer."""

    def __init__(self) -> None:
        self._shown: list[tuple[str, Guess]] = []
        self._count = 0

    def add(self, answer: Answer) -> None:
        """Take a file's answer, as far as there is room."""
        name = Path(answer.path).name[-18:]
        room = _MOST_SHOWN - len(self._shown)
        self._shown += [(name, guess) for guess in answer.guesses[:room]]
        self._count += len(answer.guesses)

    def write(self, path: Path) -> None:
        """Draw it, and warn if it does not hold everything.

        Raises:
            OutputError: It cannot be written.
            ImageError: There is nothing to draw.
        """
        import numpy as np

        from vggnet.artifacts.plots import render_sheet

        if not self._shown:
            raise ImageError(f"nothing is drawn in any image, so {path} is not written")
        captions = [
            f"{name}\n{one.label} · {100 * one.probability:.0f} %" for name, one in self._shown
        ]
        images = np.stack([one.seen for _, one in self._shown])
        render_sheet(path, images, captions, "What the network saw, and what it answers")
        if self._count > len(self._shown):
            warn(f"{path} shows the first {len(self._shown)} of {self._count:,} predictions")
