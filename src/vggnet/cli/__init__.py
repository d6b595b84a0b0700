"""The command line: one file a command, each parses, calls and prints."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from typing import Annotated, NoReturn

import typer

from vggnet import __version__
from vggnet.cli import compare, data, env, evaluate, export, predict, serve, study, train
from vggnet.cli.terminal import print_logged_warnings, say
from vggnet.errors import VggnetError

_OUTPUT_LOST = (errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""How standard output fails; what fails at a file of ours is a `VggnetError`."""

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
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # No training shall end because a locale has no byte for "·".
            stream.reconfigure(errors="backslashreplace")
    print_logged_warnings()
    try:
        _run()
    except SystemExit as end:
        if "TORCHELASTIC_RUN_ID" in os.environ:  # as torchrun tells each of its processes
            _leave_at_once(end.code)
        raise


def _run() -> None:
    try:
        _run_command()
    except KeyboardInterrupt:  # before or after the command; typer ends that by 130, silently
        print("vggnet: interrupted", file=sys.stderr)
        sys.exit(130)
    except OSError as error:
        if error.errno not in _OUTPUT_LOST:
            raise
        _end_without_output(error)


def _run_command() -> None:
    try:
        app()
    except VggnetError as error:
        say(f"vggnet: {error}", error=True)
        sys.exit(error.exit_code)
    finally:
        print(end="", flush=True)  # a failure at Python's own end could not be told in our words


def _end_without_output(error: OSError) -> NoReturn:
    """End a command whose output nothing takes; silently if its reader left, as `head` does.

    The exit code is the one that typer and rich choose where they meet such a pipe first.
    """
    if error.errno != errno.EPIPE:
        with contextlib.suppress(OSError):
            print(
                f"vggnet: cannot write to standard output: {error.strerror}; "
                "make room, or send it elsewhere",
                file=sys.stderr,
            )
    # What is still buffered goes nowhere; Python would complain of it on its way out.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for standard in (1, 2):
        os.dup2(nowhere, standard)
    sys.exit(1)


def _leave_at_once(code: str | int | None) -> NoReturn:
    """End a process of several without taking Python down first.

    gloo's threads may still hold tensors; one that hands its last back to a Python that is
    shutting down ends the process by SIGABRT: 3 of 75 runs that a signal had stopped, two cores
    with three runs at a time, torch 2.13.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))
