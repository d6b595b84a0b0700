"""`vggnet evaluate`: accuracy of a model on the test set, per class, and its errors."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vggnet.cli import model_options as options
from vggnet.cli.options import DataOptions, option_groups
from vggnet.cli.terminal import printable, warn

if TYPE_CHECKING:
    from rich.table import Table

    from vggnet.engine.evaluate import Evaluation


@option_groups
def evaluate(
    model: options.ModelFile,
    *,
    dataset: Annotated[
        str | None,
        typer.Option(
            help="Dataset or folder of images; default: the one the model was trained on."
        ),
    ] = None,
    data: DataOptions,
    mistakes: Annotated[
        Path | None,
        typer.Option(help="Write the most confident errors to this PNG file."),
    ] = None,
    confusion: Annotated[
        Path | None, typer.Option(help="Write the confusion matrix to this PNG file.")
    ] = None,
    tta: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=4,
            metavar="N",
            help="Also report test-time augmentation over all shifts of up to N pixels (1 to 4).",
        ),
    ] = None,
    shifts: Annotated[int | None, typer.Option(min=1, max=4, hidden=True)] = None,
    given: options.ModelOptions,
    force: options.Force = False,
    device: options.Device = "auto",
    threads: options.Threads = None,
    as_json: options.Json = False,
) -> None:
    """Evaluate a model on the test set."""
    from vggnet.artifacts.outputs import PNG, check_outputs
    from vggnet.artifacts.plots import render_confusion_matrix, render_mistakes
    from vggnet.data.matching import load_to_evaluate
    from vggnet.engine.device import computing
    from vggnet.inference.predict import Classifier
    from vggnet.inference.tta import evaluate_tta

    classifier = Classifier(given.load(model), device)
    name = dataset or classifier.trained_on.dataset or "mnist"
    inputs = [*given.inputs(model), Path(name)]
    check_outputs([(path, PNG) for path in (mistakes, confusion) if path], inputs, force)
    test, warnings = load_to_evaluate(name, classifier.trained_on, **asdict(data))
    warn(*warnings)

    reach = tta or shifts or 0
    with computing("fp32", threads):
        found = classifier.evaluate(test)
        augmented = evaluate_tta(classifier, test, reach) if reach else None

    if mistakes:
        render_mistakes(mistakes, test.images, found, classifier.classes)
    if confusion:
        render_confusion_matrix(confusion, found, classifier.classes)
    if as_json:
        _print_json(found, augmented, reach, classifier.classes)
    else:
        _print(found, classifier.classes, test.source)
        if augmented:
            print(
                f"Averaged over {(2 * reach + 1) ** 2} shifts of up to {reach} "
                f"pixel{'s' * (reach > 1)}: accuracy {100 * augmented.accuracy:.2f} %"
            )


def _print_json(
    found: Evaluation, augmented: Evaluation | None, reach: int, classes: tuple[str, ...]
) -> None:
    import json

    from vggnet.artifacts.summary import summarize

    summary = summarize(found, classes)
    if augmented:
        scores = {"accuracy": augmented.accuracy, "loss": augmented.loss}
        summary["shifted"] = {"pixels": reach, **scores}
    print(json.dumps(summary, allow_nan=False))


def _print(found: Evaluation, classes: tuple[str, ...], source: str) -> None:
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True, markup=False, emoji=False)
    console.print(
        f"{found.describe()}\n{_describe_probabilities(found)}\ndata     {printable(source)}"
    )
    if found.is_imbalanced:
        console.print(
            f"balanced accuracy {100 * found.balanced_accuracy:.2f} %, macro F1 "
            f"{100 * found.macro_f1:.2f} %"
        )
    console.print(_build_table(found, classes))


def _build_table(found: Evaluation, classes: tuple[str, ...]) -> Table:
    """Return a table with a row for each class."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    columns = ("class", "images", "precision %", "recall %", "F1 %", "most often predicted as")
    for column in columns:
        table.add_column(column, justify="left" if column in (columns[0], columns[-1]) else "right")
    errors: dict[int, tuple[int, int]] = {}
    for true, predicted, images in found.confused_pairs.tolist():
        errors.setdefault(true, (predicted, images))  # the most frequent comes first
    for index, row in enumerate(found.per_class(classes)):
        other, times = errors.get(index, (0, 0))
        table.add_row(
            printable(str(row["class"])),
            f"{row['count']:,}",
            *(
                f"{100 * float(row[key]):.2f}" if row["count"] else "–"
                for key in ("precision", "recall", "f1")
            ),
            f"{printable(classes[other])} ({times} times)" if times else "",
        )
    return table


def _describe_probabilities(found: Evaluation) -> str:
    """Return the lines about how far the probabilities can be trusted."""
    before, reliability = found.uncalibrated, found.reliability
    low, high = reliability.error_interval()
    scores = [
        (f"NLL      {found.loss:.4f} nats", f"{before.loss:.4f}"),
        (f"Brier    {found.brier:.4f}", f"{before.brier:.4f}"),
        (
            f"ECE      {100 * reliability.error:.2f} % "
            f"(95 % interval {100 * low:.2f} to {100 * high:.2f} %)",
            f"{100 * before.reliability.error:.2f} %",
        ),
    ]
    if not found.calibration:
        note = "\nthe model's file has no calibration: probabilities are a plain softmax"
        return "\n".join(line for line, _ in scores) + note
    return "\n".join(f"{line}; {other} before calibration" for line, other in scores)
