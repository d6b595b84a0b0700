"""`vggnet evaluate`: how good a model file is, and what it gets wrong."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from vggnet.engine.evaluate import Evaluation


def evaluate(
    model: Annotated[Path, typer.Argument(help="A .pth or .safetensors file.", metavar="MODEL")],
    dataset: Annotated[
        str | None,
        typer.Option(help="Dataset, or folder of images; default: the one trained on."),
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder that holds it in torchvision's layout.")
    ] = None,
    download: Annotated[
        bool, typer.Option(help="Fetch a dataset that is not on this machine.")
    ] = True,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave unreadable images of a folder out.")
    ] = False,
    mistakes: Annotated[
        Path | None,
        typer.Option(help="Write the most confident errors to this PNG file."),
    ] = None,
    confusion: Annotated[
        Path | None, typer.Option(help="Write the confusion matrix to this PNG file.")
    ] = None,
    shifts: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=4,
            metavar="N",
            help="Besides, average the answers to all shifts of up to N pixels, at most 4.",
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N, mps or xpu.")] = "auto",
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads; default: the usable cores.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Evaluate a model file on the test set, ours or one that the article's script saved."""
    import json
    import sys

    from vggnet.artifacts.plots import render_confusion_matrix, render_mistakes
    from vggnet.artifacts.summary import summarize
    from vggnet.data.matching import load_to_evaluate
    from vggnet.engine.device import computing, usable_cores
    from vggnet.inference.predict import load
    from vggnet.inference.tta import evaluate_tta

    classifier = load(model, device)
    learnt = classifier.learnt
    name = dataset or learnt.dataset or "mnist"
    test, warnings = load_to_evaluate(name, learnt, data_dir, download=download, skip_bad=skip_bad)
    for warning in warnings:
        print(f"vggnet: warning: {warning}", file=sys.stderr)
    with computing("fp32", threads or usable_cores()):
        found = classifier.evaluate(test)
        shifted = evaluate_tta(classifier, test, shifts) if shifts else None
    if mistakes:
        render_mistakes(mistakes, test.images, found, classifier.classes)
    if confusion:
        render_confusion_matrix(confusion, found, classifier.classes)
    if as_json:
        summary = summarize(found, classifier.classes)
        if shifted:
            summary["shifted"] = {
                "pixels": shifts,
                "accuracy": shifted.accuracy,
                "loss": shifted.loss,
            }
        print(json.dumps(summary))
        return
    _print(found, classifier.classes, test.source)
    if shifts and shifted:
        print(
            f"With the mean of {(2 * shifts + 1) ** 2} answers an image, to all shifts of up to "
            f"{shifts} pixel{'s' if shifts > 1 else ''}: accuracy {100 * shifted.accuracy:.2f} %"
        )


def _print(found: Evaluation, classes: tuple[str, ...], source: str) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, soft_wrap=True, markup=False, emoji=False)
    low, high = found.accuracy_interval
    console.print(
        f"accuracy {100 * found.accuracy:.2f} % ({found.correct:,} of {found.count:,}; "
        f"95 % interval {100 * low:.2f} to {100 * high:.2f} %)\n"
        f"loss     {found.loss:.4f} nats\n"
        f"data     {source}"
    )
    table = Table(box=box.SIMPLE_HEAD)
    columns = ("class", "images", "precision %", "recall %", "F1 %", "most often taken for")
    for column in columns:
        table.add_column(column, justify="left" if column in (columns[0], columns[-1]) else "right")
    for index, row in enumerate(found.per_class(classes)):
        wrong = found.confusion_matrix[index].copy()
        wrong[index] = 0
        other = int(wrong.argmax())
        table.add_row(
            str(row["class"]),
            f"{row['count']:,}",
            *(
                f"{100 * float(row[key]):.2f}" if row["count"] else "–"
                for key in ("precision", "recall", "f1")
            ),
            f"{classes[other]} ({wrong[other]} times)" if wrong[other] else "",
        )
    console.print(table)
