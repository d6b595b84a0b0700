"""`vggnet serve`: a model behind HTTP, and a page to draw a digit on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def serve(
    model: Annotated[Path, typer.Argument(help="A .pth or .safetensors file.", metavar="MODEL")],
    host: Annotated[str, typer.Option(help="Name or address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(help="Another name by which the server may be addressed; repeatable."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N, mps or xpu.")] = "auto",
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads; default: the usable cores.")
    ] = None,
) -> None:
    """Serve a model: a page to draw on, POST /predict, and the Open Inference Protocol v2.

    Only this machine can reach it unless --host says otherwise; it asks nobody who they are.
    """
    from vggnet.engine.device import usable_cores
    from vggnet.errors import ServeError
    from vggnet.inference.predict import load

    try:
        from vggnet.serve.server import serve as run
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "vggnet":
            raise
        raise ServeError("serving needs an extra: pip install 'vggnet[serve]'") from None
    classifier = load(model, device)
    run(
        classifier,
        host=host,
        port=port,
        threads=threads or usable_cores(),
        names=allow_host or (),
        announce=lambda address: print(
            f"{model.name} is served at {address} (Ctrl-C stops)", flush=True
        ),
    )
