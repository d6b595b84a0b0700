"""`vggnet predict`: classify images."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from vggnet.cli.options import Device, ModelFile, Threads
from vggnet.errors import ConfigError, ImageError

if TYPE_CHECKING:
    from vggnet.inference.read import Answer, Guess

NOTHING = "nothing drawn"

_MANY = 32
"""Images from which on compiled kernels save more time than loading them takes."""

_MOST_SHOWN = 400
"""Images or digits on the sheet of `--show`; image viewers fail to open larger ones."""


def predict(
    model: ModelFile,
    images: Annotated[
        list[Path],
        typer.Argument(
            help="PNG, JPEG, WebP or BMP files, folders, or - for standard input.",
            metavar="IMAGE...",
            readable=False,  # an unreadable file is reported with its image, not as wrong usage
        ),
    ],
    top: Annotated[int, typer.Option(min=1, help="Number of classes to show per image.")] = 3,
    style: Annotated[
        Literal["table", "csv", "json"], typer.Option("--format", help="Output format.")
    ] = "table",
    split: Annotated[
        bool, typer.Option("--split", help="Read a row of digits that do not touch.")
    ] = False,
    prepare: Annotated[
        bool,
        typer.Option(
            "--prepare/--no-prepare",
            help="Redraw digits in MNIST's style, or not.",
        ),
    ] = True,
    show: Annotated[
        Path | None,
        typer.Option(help="Write inputs and predictions to this PNG file."),
    ] = None,
    device: Device = "auto",
    threads: Threads = None,
) -> None:
    """Classify images of digits, in any drawing style, or of what else the model was trained on.

    Works for dark ink on light paper and the reverse. Images that cannot be read are listed
    at the end; the others are classified.
    """
    from vggnet.data.progress import track
    from vggnet.engine.device import computing, usable_cores
    from vggnet.inference.predict import load
    from vggnet.inference.read import Reading, choose_reading, find_images, read_images

    if split and not prepare:
        raise ConfigError("--split cannot be used with --no-prepare")
    files = find_images(images)
    # Loading the compiled kernels takes longer than a few predictions without them.
    classifier = load(model, device, kernels="torch" if len(files) < _MANY else "auto")
    reading = choose_reading(classifier.learnt) if prepare else Reading.AS_IT_IS
    if split and reading is not Reading.DRAWN:
        raise ConfigError(
            "--split needs a model trained on single characters in MNIST's format: 28×28 gray "
            "pixels, and class names of one character"
        )
    sheet = _Sheet()
    problems: list[str] = []

    def answers() -> Iterator[Answer]:
        chosen = Reading.ROW if split else reading
        found = read_images(classifier, files, chosen, top)
        if not sys.stdout.isatty():  # on a terminal, the predictions show the progress
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
            print(line)
    if problems:
        print("\n".join(problems), file=sys.stderr)
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
                f"{answer.path}  {answer.number}  (least confident: digit {answer.least_sure + 1}, "
                f"{guess.label}, {100 * guess.probability:.1f} %)"
            )
        else:
            (guess,) = answer.guesses
            shares = "  ".join(f"{name} {100 * share:.1f} %" for name, share in guess.top)
            yield f"{answer.path}  {shares}"


def _as_csv(answers: Iterable[Answer], split: bool) -> Iterator[str]:
    import csv
    import io

    def line(*cells: object) -> str:
        file = io.StringIO()
        csv.writer(file, lineterminator="").writerow(cells)
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
    """The network's inputs, each with its prediction."""

    def __init__(self) -> None:
        self._shown: list[tuple[str, Guess]] = []
        self._count = 0

    def add(self, answer: Answer) -> None:
        """Add the prediction for a file, if there is room."""
        name = Path(answer.path).name[-18:]
        room = _MOST_SHOWN - len(self._shown)
        self._shown += [(name, guess) for guess in answer.guesses[:room]]
        self._count += len(answer.guesses)

    def write(self, path: Path) -> None:
        """Write the sheet, and warn if not everything fits.

        Raises:
            OutputError: The file cannot be written.
            ImageError: There is nothing to draw.
        """
        import numpy as np

        from vggnet.artifacts.plots import render_sheet

        if not self._shown:
            raise ImageError(f"nothing is drawn in any image; {path} was not written")
        captions = [
            f"{name}\n{one.label} · {100 * one.probability:.0f} %" for name, one in self._shown
        ]
        images = np.stack([one.seen for _, one in self._shown])
        render_sheet(path, images, captions, "What the network sees, and what it predicts")
        if self._count > len(self._shown):
            print(
                f"vggnet: warning: {path} shows the first {len(self._shown)} of "
                f"{self._count:,} predictions",
                file=sys.stderr,
            )
