"""`vggnet data`: list, verify, show and audit datasets."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from vggnet.cli import model_options as options
from vggnet.cli.audit import audit
from vggnet.cli.options import DataOptions, option_groups
from vggnet.cli.terminal import say, warn

if TYPE_CHECKING:
    from vggnet.data.dataset import Dataset

app = typer.Typer(
    name="data",
    help="List, verify, show and audit datasets.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Name = Annotated[
    str, typer.Argument(help="A name from `vggnet data list`, or the path of your own data.")
]
ImageSize = Annotated[
    int | None,
    typer.Option(min=8, max=1024, help="Height and width to resize your own images to."),
]

_MOST_CLASSES = 100
"""Rows of a sheet, which is then 20,000 pixels high."""

app.command()(audit)


@app.command("list")
def list_datasets(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """List the datasets that --dataset takes, and where each is or would be downloaded from."""
    import json

    from vggnet.data.catalog import CATALOG
    from vggnet.data.places import find_place
    from vggnet.data.sources import KINDS

    places = {name: find_place(entry, entry.train) for name, entry in CATALOG.items()}
    if as_json:
        rows: list[dict[str, Any]] = [
            {
                "name": name,
                "classes": list(entry.classes),
                "bundled": entry.bundled,
                "place": places[name].words,
                "on_disk": not places[name].words.startswith("would"),
                "licence": entry.licence,
            }
            for name, entry in CATALOG.items()
        ]
        print(json.dumps(rows))
        return
    width = max(map(len, CATALOG))
    for name, entry in CATALOG.items():
        words = f"{len(entry.classes)} classes · {places[name].words} · {entry.licence}"
        print(f"{name:{width}}  {words}")
    print(f"{'PATH':{width}}  your own data: {KINDS}")


@app.command()
@option_groups
def verify(
    name: Name = "mnist",
    *,
    source: DataOptions,
    image_size: ImageSize = None,
) -> None:
    """Read a whole dataset, compare it with published hashes, and report problems."""
    import numpy as np

    from vggnet.data.storage import is_path

    dataset = _load(name, source, image_size)
    words = "as published" if dataset.verified else "complete; no hash of them is published"
    if is_path(name):
        words = f"read as {' × '.join(map(str, dataset.shape))}"
    for examples in (dataset.train, dataset.test):
        say(f"{examples.source}: {len(examples):,} images, {words}")
    if is_path(name):
        counts = np.bincount(dataset.train.labels, minlength=len(dataset.classes))
        for class_, count in zip(dataset.classes, counts, strict=True):
            say(f"    {class_}: {count:,} to train on")
    print(f"dataset SHA-256 {dataset.sha256}")


@app.command()
@option_groups
def show(
    name: Name = "mnist",
    *,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="PNG file; default: NAME.png in this folder."),
    ] = None,
    split: Annotated[Literal["train", "test"], typer.Option(help="Split to draw.")] = "train",
    source: DataOptions,
    image_size: ImageSize = None,
    force: options.Force = False,
) -> None:
    """Draw the first eight images of every class, of up to 100 classes."""
    import numpy as np

    from vggnet.artifacts.outputs import PNG, check_output
    from vggnet.artifacts.plots import render_sheet

    if output:
        check_output(output, PNG, [Path(name)], force)
    dataset = _load(name, source, image_size)
    examples = dataset.train if split == "train" else dataset.test
    shown = min(len(dataset.classes), _MOST_CLASSES)
    chosen = np.concatenate(
        [np.flatnonzero(examples.labels == number)[:8] for number in range(shown)]
    )
    captions = [f"{dataset.classes[examples.labels[index]]} · no. {index}" for index in chosen]
    path = output or Path(f"{dataset.name}.png")
    check_output(path, PNG, [Path(name)], force)
    title = f"{dataset.name}, {split}: the first eight images of each class"
    render_sheet(path, examples.images[chosen], captions, title)
    if shown < len(dataset.classes):
        warn(f"{path} shows the first {shown} of {len(dataset.classes):,} classes")
    say(str(path))


@app.command()
def cache(
    clear: Annotated[bool, typer.Option("--clear", help="Delete all decoded images.")] = False,
) -> None:
    """List the decoded images that are kept on disk, or delete them."""
    from datetime import datetime

    from vggnet.data.cache import LIMIT, clear_cache, list_entries
    from vggnet.data.files import cache_folder

    folder = cache_folder("decoded")
    if clear:
        print(f"{clear_cache() / 1e9:,.1f} GB deleted in {folder}")
        return
    entries = list_entries()
    for entry in entries:
        used = datetime.fromtimestamp(entry.used).strftime("%Y-%m-%d")
        say(f"{entry.size / 1e9:6,.1f} GB  {entry.count:,} images  used {used}  {entry.source}")
    total = f"{sum(entry.size for entry in entries) / 1e9:,.1f} GB" if entries else "empty"
    print(f"{folder}: {total}; the oldest entries are deleted above {LIMIT / 1e9:,.0f} GB")


def _load(name: str, source: DataOptions, image_size: int | None) -> Dataset:
    """Load a dataset, and print its warnings."""
    from vggnet.data.storage import load_dataset

    dataset = load_dataset(name, image_size=image_size, **asdict(source))
    warn(*dataset.warnings)
    return dataset
