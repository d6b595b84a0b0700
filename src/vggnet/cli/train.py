"""`vggnet train`: train a network and save it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from vggnet.cli.model_options import Force
from vggnet.cli.options import ConfigFile, Recipe, config_flags, read_settings


class TrainCommand(TyperCommand):
    """The command, which also accepts `--resume` without a value; Typer requires one."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Add an empty value to a `--resume` without one."""
        for place, argument in enumerate(args):
            if argument == "--resume" and (args[place + 1 :] or ["-"])[0].startswith("-"):
                args[place] = "--resume="
        return super().parse_args(ctx, args)


@config_flags
def train(
    recipe: Recipe = None,
    config: ConfigFile = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Model file; default: DATASET_vggnet.pth in this folder."
        ),
    ] = None,
    force: Force = False,
    runs: Annotated[Path, typer.Option(help="Folder that contains the run folders.")] = Path(
        "runs"
    ),
    name: Annotated[
        str | None,
        typer.Option(help="Name of the run folder; default: recipe, dataset and time."),
    ] = None,
    resume: Annotated[
        str | None, typer.Option(metavar="[FOLDER]", help="Run to resume; default: the newest.")
    ] = None,
    checkpoint_every: Annotated[
        str | None,
        typer.Option(
            metavar="N|Ns",
            help="Steps (10) or seconds (30s) between checkpoints; default: 30s, "
            "or longer to stay below 1 % of the time.",
        ),
    ] = None,
    nproc: Annotated[int | None, typer.Option(min=1, help="Processes on this machine.")] = None,
    max_restarts: Annotated[
        int, typer.Option(min=0, help="Restarts after a process fails or is killed.")
    ] = 0,
    timeout: Annotated[
        float | None,
        typer.Option(min=1, help="Seconds to wait for another process; default: 120."),
    ] = None,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write TensorBoard events to the run folder.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object at the end, and no progress.")
    ] = False,
    **flags: Any,
) -> None:
    """Train a VGG on MNIST or your own images, evaluate it on the test set, and save it.

    Writes the model file, and everything else to runs/NAME. Flags override --config, which
    overrides the recipe. Ctrl-C stops after the current step and prints the command that
    resumes the run.
    """
    from vggnet.recipes import resolve_config

    layers = read_settings(config, recipe, flags)
    settings = resolve_config(*layers)

    from vggnet.engine.launch import is_worker, launch

    if (nproc or max_restarts) and not is_worker():
        launch(["-m", "vggnet", *sys.argv[1:]], nproc or 1, max_restarts)
        return

    from vggnet.cli.progress import JsonReporter, TerminalReporter
    from vggnet.engine.session import TIMEOUT
    from vggnet.run import Options, resume_run, run

    options = Options(
        output=output,
        force=force,
        inputs=(config,) if config else (),
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
            result = resume_run(Path(resume) if resume else None, layers, options, reporter)
        reporter.finished(result)
