"""`vggnet env`: what an issue report needs."""

from __future__ import annotations

from vggnet.cli.model_options import Json


def env(as_json: Json = False) -> None:
    """Show versions, processor, available devices, and which convolutions are used.

    Tests the compiled convolutions, and compiles them first if necessary.
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
    rows = [
        (key.replace("_", " "), "unknown" if value is None else str(value))
        for key, value in found.items()
    ]
    rows += [(f"device {kind}", text) for kind, text in devices.items()]
    width = max(len(key) for key, _ in rows)
    for key, value in rows:
        print(f"{key:{width}}  {value}")
