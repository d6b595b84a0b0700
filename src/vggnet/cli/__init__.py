"""The command line: one file per command, which parses, calls and prints."""

from __future__ import annotations

import atexit
import contextlib
import errno
import gc
import io
import os
import sys
from typing import Annotated, NoReturn

import typer

from vggnet import __version__
from vggnet.cli import (
    compare,
    data,
    env,
    evaluate,
    export,
    info,
    look,
    predict,
    serve,
    study,
    train,
)
from vggnet.cli.terminal import print_logged_warnings, say
from vggnet.errors import VggnetError

_OUTPUT_LOST = (errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""Errors of standard output; errors of other files are a `VggnetError`."""

app = typer.Typer(
    name="vggnet",
    help="Train, use and benchmark VGG networks on MNIST, similar datasets and your own images.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command(cls=train.TrainCommand)(train.train)
app.command()(evaluate.evaluate)
app.command()(predict.predict)
app.command()(info.info)
app.command()(look.look)
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
    """Run the command line; a user's mistake ends it with one line and an exit code."""
    # OpenMP threads spin while they wait. With GNU's default of 300,000 turns, the final
    # evaluation was 5 times slower while another program used one of two cores; on an idle
    # machine a step takes the same time within 5 %. Read when torch is loaded.
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    # The garbage collector would visit each of torch's objects several times while they are
    # imported, and once more at exit: together a quarter of the time of `import torch`.
    gc.set_threshold(100_000)
    atexit.register(gc.freeze)
    _open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A locale without "·" must not end a training.
            stream.reconfigure(errors="backslashreplace")
    print_logged_warnings()
    try:
        _run()
    except SystemExit as end:
        if "TORCHELASTIC_RUN_ID" in os.environ:  # a worker of torchrun
            _exit_at_once(end.code)
        raise


def _open_closed_streams() -> None:
    """Open the null device as each standard stream that is closed, as with `>&-`.

    Otherwise the next file to be opened gets its number, and all that is printed.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    sys.stdin = sys.stdin or open(0)  # noqa: SIM115
    sys.stdout = sys.stdout or open(1, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w")  # noqa: SIM115


def _run() -> None:
    try:
        _run_command()
    except KeyboardInterrupt:  # outside the command, where Typer does not handle it
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
        print(end="", flush=True)  # Python would report a failure at exit in its own words


def _end_without_output(error: OSError) -> NoReturn:
    """Exit because standard output cannot be written; silently if its reader left, like `head`.

    The exit code is the one of Typer and rich in the same case.
    """
    if error.errno != errno.EPIPE:
        with contextlib.suppress(OSError):
            print(
                f"vggnet: cannot write to standard output: {error.strerror}; "
                "free some space, or redirect it",
                file=sys.stderr,
            )
    # Discard what is buffered; Python would report it at exit.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for standard in (1, 2):
        os.dup2(nowhere, standard)
    sys.exit(1)


def _exit_at_once(code: str | int | None) -> NoReturn:
    """Exit a worker without shutting Python down.

    gloo's threads may still hold tensors, and freeing one during Python's shutdown aborts the
    process: 3 of 75 interrupted runs, with three runs at a time on two cores, torch 2.13.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))
