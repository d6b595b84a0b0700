"""`vggnet serve`: models behind HTTP, with a page to draw on."""

from __future__ import annotations

import importlib
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from vggnet.cli import model_options as options
from vggnet.cli.options import option_groups
from vggnet.cli.terminal import printable, warn
from vggnet.errors import ConfigError, ServeError


@option_groups
def serve(
    models: Annotated[
        list[Path],
        typer.Argument(
            help="Model files, weights of VGGs from other projects, or folders of Hugging Face's "
            "Hub. The first one is the default.",
            metavar="MODEL...",
        ),
    ],
    *,
    host: Annotated[str, typer.Option(help="Name or address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free port.")] = 8000,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(help="Another name allowed in the Host header; repeatable.", metavar="NAME"),
    ] = None,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(
            help="Site whose pages may send requests, as http://localhost:3000; repeatable.",
            metavar="URL",
        ),
    ] = None,
    trusted_proxy: Annotated[
        list[str] | None,
        typer.Option(
            help="Address of a proxy whose X-Forwarded headers to use; repeatable.",
            metavar="ADDRESS",
        ),
    ] = None,
    root_path: Annotated[
        str, typer.Option(help="Path under which a proxy publishes the server, as /digits.")
    ] = "",
    token: Annotated[
        str | None,
        typer.Option(
            help="Token that requests must send, except for health.", envvar="VGGNET_TOKEN"
        ),
    ] = None,
    given: options.ModelOptions,
    reject: options.Reject = None,
    device: options.Device = "auto",
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="CPU threads and worker processes; default: the usable cores."),
    ] = None,
) -> None:
    """Serve models: a page to draw on, POST /predict, and the Open Inference Protocol v2.

    By default only this machine can reach the server. There is no authentication without
    --token.
    """
    from vggnet.engine.processor import usable_cores

    _check_extra()
    from vggnet.inference.predict import Classifier
    from vggnet.serve.access import Access
    from vggnet.serve.server import serve as run

    access = Access(
        host,
        names=allow_host or (),
        origins=allow_origin or (),
        proxies=trusted_proxy or (),
        root_path=root_path,
        token=token,
    )
    names = _name_models(models)
    loaded = [given.load(path) for path in models]
    rate = options.read_reject(
        reject, {path: one.card for path, one in zip(models, loaded, strict=True)}
    )
    run(
        {name: Classifier(one, device) for name, one in zip(names, loaded, strict=True)},
        access,
        host=host,
        port=port,
        threads=threads or usable_cores(),
        reject=rate,
        announce=partial(_announce, names, host, token is not None),
    )


def _check_extra() -> None:
    """Raise a `ServeError` if the packages of the extra are not installed."""
    try:
        importlib.import_module("vggnet.serve.server")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "vggnet":
            raise
        raise ServeError("serving needs an extra: pip install 'vggnet[serve]'") from None


def _name_models(paths: list[Path]) -> list[str]:
    """Return the name of each model, which is part of its URL.

    Raises:
        ConfigError: Two have the same name.
    """
    names = [path.stem for path in paths]
    if len(set(names)) < len(names):
        raise ConfigError(f"two models have the same name ({', '.join(names)}): rename a file")
    return names


def _announce(names: list[str], host: str, has_token: bool, address: str) -> None:
    """Print the address, and warn if other machines can reach it."""
    from vggnet.serve.access import is_loopback

    if not is_loopback(host):
        risk = "" if has_token else ", and there is no authentication without --token"
        warn(f"other machines can reach this server{risk}")
    print(f"Serving {printable(', '.join(names))} at {address} (Ctrl-C stops it)", flush=True)
