"""`vggnet info`: what a model file holds."""

from __future__ import annotations

from vggnet.cli import model_options as options
from vggnet.cli.options import option_groups
from vggnet.cli.terminal import printable


@option_groups
def info(
    model: options.ModelFile,
    *,
    given: options.ModelOptions,
    as_json: options.Json = False,
) -> None:
    """Print a model's architecture, layers, parameters, FLOPs, classes, training data and scores.

    The receptive field is what one output of a layer sees of the image.
    """
    import json

    from rich import box
    from rich.console import Console
    from rich.table import Table

    from vggnet.artifacts.model_page import (
        LAYER_COLUMNS,
        describe_facts,
        describe_model,
        layer_cells,
    )
    from vggnet.model.summary import summarize_network

    loaded = given.load(model)
    if as_json:
        print(json.dumps(describe_model(loaded.network, loaded.card)))
        return
    console = Console(highlight=False, soft_wrap=True, markup=False, emoji=False)
    for name, text in describe_facts(loaded.network, loaded.card).items():
        console.print(f"{name:<12}  {printable(text)}")
    table = Table(box=box.SIMPLE_HEAD)
    for column in LAYER_COLUMNS:
        left = column in ("stage", "layer")
        table.add_column(column, justify="left" if left else "right")
    for row in layer_cells(summarize_network(loaded.network)):
        table.add_row(*row)
    console.print(table)
