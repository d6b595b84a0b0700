"""The command line: one file a command, each parses, calls and prints."""

from __future__ import annotations

import os
import sys
from typing import Annotated, NoReturn

import typer

from vggnet import __version__
from vggnet.cli import compare, data, env, evaluate, export, predict, serve, study, train
from vggnet.errors import VggnetError

app = typer.Typer(
    name="vggnet",
    help="Train, use and honestly time VGG networks on MNIST and images like it.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command(cls=train.TrainCommand)(train.train)
app.command()(evaluate.evaluate)
app.command()(predict.predict)
app.command()(export.export)
app.command()(compare.compare)
app.command()(serve.serve)
app.command()(env.env)
app.add_typer(data.app)
app.add_typer(study.app)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"vggnet {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line; a user's mistake ends it with one sentence and an exit code."""
    # Threads that wait for each other spin. When another program takes a core, GNU's default
    # of 300,000 turns made the last evaluation 5 times slower than this (two cores, one of
    # them busy); on a quiet machine a step is as fast within 5 %. Read when torch is loaded.
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    try:
        _run()
    except SystemExit as end:
        if "TORCHELASTIC_RUN_ID" in os.environ:  # as torchrun tells each of its processes
            _leave_at_once(end.code)
        raise


def _run() -> None:
    try:
        app()
    except VggnetError as error:
        print(f"vggnet: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("vggnet: interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        # The reader of a pipe left (`vggnet … | head`); Python must not complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)


def _leave_at_once(code: str | int | None) -> NoReturn:
    """End a process of several without taking Python down first.

    gloo's threads may still hold tensors; one that hands its last back to a Python that is
    shutting down ends the process by SIGABRT: 3 of 75 runs that a signal had stopped, two cores
    with three runs at a time, torch 2.13.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))
