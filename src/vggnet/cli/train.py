"""`vggnet train`: train a network and save it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from vggnet.cli.flags import config_flags, nest_flags


class TrainCommand(TyperCommand):
    """The command, whose `--resume` may stand alone; typer wants a value behind it."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put an empty value behind a bare `--resume`."""
        for place, argument in enumerate(args):
            if argument == "--resume" and (args[place + 1 :] or ["-"])[0].startswith("-"):
                args[place] = "--resume="
        return super().parse_args(ctx, args)


@config_flags
def train(
    recipe: Annotated[
        str | None,
        typer.Option(help="Settings to start from: fast (the default), best or article."),
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
    resume: Annotated[
        str | None,
        typer.Option(
            metavar="[FOLDER]",
            help="Go on with a run that was stopped; alone: with --name's, or else the newest.",
        ),
    ] = None,
    checkpoint_every: Annotated[
        str | None,
        typer.Option(
            metavar="N|Ns",
            help="Steps, 10, or seconds, 30s; default: 30s, or rarer, for 1 % of the time.",
        ),
    ] = None,
    nproc: Annotated[
        int | None, typer.Option(min=1, help="Processes on this machine, by torchrun's engine.")
    ] = None,
    max_restarts: Annotated[
        int,
        typer.Option(
            min=0, help="How often processes are started again when one is killed or fails."
        ),
    ] = 0,
    timeout: Annotated[
        float | None,
        typer.Option(min=1, help="Seconds to wait for another process; default: 120."),
    ] = None,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write TensorBoard events into the run's folder.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object at the end, and no progress.")
    ] = False,
    **flags: Any,
) -> None:
    """Train a VGG on MNIST or your own images, evaluate it on the test set, and save it.

    Writes the model file, and everything else into runs/NAME. Every setting of a recipe
    can be changed by a flag or by --config; flags win. Ctrl-C stops at the next step and
    says how to go on.
    """
    from vggnet.config import load_overrides
    from vggnet.recipes import resolve_config

    from_file = load_overrides(config) if config else {}
    from_flags: dict[str, Any] = nest_flags(flags)
    if recipe is not None:
        from_flags["recipe"] = recipe
    settings = resolve_config(from_file, from_flags)

    from vggnet.engine.launch import is_worker, launch

    if (nproc or max_restarts) and not is_worker():
        launch(["-m", "vggnet", *sys.argv[1:]], nproc or 1, max_restarts)
        return

    from vggnet.cli.progress import JsonReporter, TerminalReporter
    from vggnet.engine.session import TIMEOUT
    from vggnet.run import Options, resume_run, run

    options = Options(
        output=output,
        runs=runs,
        name=name,
        checkpoint_every=checkpoint_every,
        timeout=timeout or TIMEOUT,
        tensorboard=tensorboard,
    )
    with JsonReporter() if as_json else TerminalReporter() as reporter:
        if resume is None:
            result = run(settings, options, reporter)
        else:
            folder = Path(resume) if resume else None
            result = resume_run(folder, (from_file, from_flags), options, reporter)
        reporter.finished(result)
