"""`vggnet serve`: a model behind HTTP, and a page to draw a digit on."""

from __future__ import annotations

from typing import Annotated

import typer

from vggnet.cli import model_options as options


def serve(
    model: options.ModelFile,
    host: Annotated[str, typer.Option(help="Name or address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(help="Another name by which the server may be addressed; repeatable."),
    ] = None,
    mean: options.Mean = None,
    std: options.Std = None,
    image_size: options.ModelImageSize = None,
    classes: options.Classes = None,
    device: options.Device = "auto",
    threads: options.Threads = None,
) -> None:
    """Serve a model: a page to draw on, POST /predict, and the Open Inference Protocol v2.

    Only this machine can reach it unless --host says otherwise; it asks nobody who they are.
    """
    from vggnet.artifacts.model_file import load_model
    from vggnet.engine.device import usable_cores
    from vggnet.errors import ServeError
    from vggnet.inference.predict import Classifier

    try:
        from vggnet.serve.server import serve as run
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "vggnet":
            raise
        raise ServeError("serving needs an extra: pip install 'vggnet[serve]'") from None
    overrides = options.read_overrides(mean, std, image_size, classes)
    classifier = Classifier(load_model(model, overrides), device)
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
