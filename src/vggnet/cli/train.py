"""`vggnet train`: train a network and save it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from vggnet.cli.flags import config_flags, nest_flags


@config_flags
def train(
    recipe: Annotated[
        str | None, typer.Option(help="Settings to start from: fast (the default) or article.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="TOML or JSON file of settings to lay over the recipe's."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Model file; default: mnist_vggnet.pth, here."),
    ] = None,
    runs: Annotated[Path, typer.Option(help="Folder that the run's own folder goes into.")] = Path(
        "runs"
    ),
    name: Annotated[
        str | None, typer.Option(help="Name of the run's folder; default: made up.")
    ] = None,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write TensorBoard events into the run's folder.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object at the end, and no progress.")
    ] = False,
    **flags: Any,
) -> None:
    """Train a VGG on MNIST, evaluate it on the test set, and save it.

    Writes the model file, and everything else into runs/NAME. Every setting of a recipe
    can be changed by a flag or by --config; flags win.
    """
    from vggnet.config import load_overrides
    from vggnet.recipes import resolve_config

    from_file = load_overrides(config) if config else {}
    from_flags: dict[str, Any] = nest_flags(flags)
    if recipe is not None:
        from_flags["recipe"] = recipe
    settings = resolve_config(from_file, from_flags)

    from vggnet.cli.progress import JsonReporter, TerminalReporter
    from vggnet.run import run

    reporter = JsonReporter() if as_json else TerminalReporter()
    with reporter:
        result = run(
            settings,
            output=output,
            runs=runs,
            name=name,
            reporter=reporter,
            tensorboard=tensorboard,
        )
        reporter.finished(result)
