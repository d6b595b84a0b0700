"""`vggnet data`: which datasets there are, whether the files are whole, what they look like."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

app = typer.Typer(
    name="data",
    help="List, verify and show datasets.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Name = Annotated[str, typer.Argument(help="Dataset, as `vggnet data list` names it.")]
DataDir = Annotated[Path | None, typer.Option(help="Folder that holds it in torchvision's layout.")]


@app.command("list")
def list_datasets(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """List the datasets that --dataset takes."""
    import json

    from vggnet.data.catalog import CATALOG

    if as_json:
        rows = [
            {
                "name": entry.name,
                "classes": list(entry.classes),
                "bundled": entry.bundled,
                "licence": entry.licence,
            }
            for entry in CATALOG.values()
        ]
        print(json.dumps(rows))
        return
    for entry in CATALOG.values():
        where = "part of this package" if entry.bundled else "found on disk"
        print(f"{entry.name}  {len(entry.classes)} classes · {where} · {entry.licence}")


@app.command()
def verify(name: Name = "mnist", data_dir: DataDir = None) -> None:
    """Read all files of a dataset and compare them with the published SHA-256."""
    from vggnet.data.storage import load_dataset

    dataset = load_dataset(name, data_dir)
    for pictures in (dataset.train, dataset.test):
        print(f"{pictures.source}: {len(pictures):,} pictures, as published")
    print(f"dataset SHA-256 {dataset.sha256}")


@app.command()
def show(
    name: Name = "mnist",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="PNG file; default: NAME.png, here.")
    ] = None,
    split: Annotated[Literal["train", "test"], typer.Option(help="Which split.")] = "train",
    data_dir: DataDir = None,
) -> None:
    """Draw a contact sheet: the first eight pictures of every class."""
    import numpy as np

    from vggnet.artifacts.pictures import render_sheet
    from vggnet.data.storage import load_dataset

    dataset = load_dataset(name, data_dir)
    pictures = dataset.train if split == "train" else dataset.test
    chosen = np.concatenate(
        [np.flatnonzero(pictures.labels == number)[:8] for number in range(len(dataset.classes))]
    )
    captions = [f"{dataset.classes[pictures.labels[index]]} · no. {index}" for index in chosen]
    path = output or Path(f"{name}.png")
    title = f"{name}, {split}: the first eight pictures of each class"
    render_sheet(path, pictures.images[chosen], captions, title)
    print(path)
