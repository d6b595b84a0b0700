"""`vggnet env`: what an issue report needs."""

from __future__ import annotations

from typing import Annotated

import typer


def env(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show versions, processor, convolutions, and which devices there are, or why not.

    The convolutions are tested for that, and compiled if they never were.
    """
    import json

    from vggnet.engine.environment import describe_environment
    from vggnet.kernels import status

    found = describe_environment()
    kernels = status()
    found["convolutions"] = f"{kernels.in_use}: {kernels.reason}"
    found["compiler"] = kernels.compiler
    if as_json:
        print(json.dumps(found))
        return
    devices = found.pop("devices")
    rows = [(key.replace("_", " "), str(value)) for key, value in found.items()]
    rows += [(f"device {kind}", text) for kind, text in devices.items()]
    width = max(len(key) for key, _ in rows)
    for key, value in rows:
        print(f"{key:{width}}  {value}")
