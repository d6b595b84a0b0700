"""A worker process: reads request bodies from standard input, writes images to standard output.

Both directions carry messages of a JSON object and some bytes (`MESSAGE`). There is no pickle:
what a worker returns is data, even if an image took the worker over. It ends with its input,
so it outlives the server by one body at most.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import signal
import struct
import sys
import time
import traceback
import warnings
from pathlib import Path
from typing import IO, Any

from vggnet.inference.reading import Reading
from vggnet.serve.intake import Input, Intake, read_inference, read_prediction
from vggnet.serve.limits import Limits
from vggnet.serve.pixels import InputError

MESSAGE = struct.Struct(">II")
"""Header of a message: the bytes of its JSON object, and those that follow it."""


def pack(fields: dict[str, Any], data: bytes = b"") -> bytes:
    """Return a message."""
    text = json.dumps(fields).encode()
    return MESSAGE.pack(len(text), len(data)) + text + data


def answer(task: dict[str, Any], body: bytes, limits: Limits) -> bytes:
    """Return the message that answers a task; errors are answers, too."""
    network = Input(tuple(task["shape"]), Reading(task["reading"]))
    try:
        if task["kind"] == "infer":
            intake = read_inference(body, network)
        else:
            intake = read_prediction(body, task["content_type"], network, limits)
        if len(intake.images) > task["most"]:
            raise InputError(
                f"send at most {task['most']} images at once, not {len(intake.images)}"
            )
    except InputError as error:
        return pack({"error": str(error), "hint": error.hint})
    except MemoryError:
        return pack({"error": "reading it takes too much memory", "hint": False})
    except Exception as error:
        return pack({"crash": describe(error)})
    return _pack_intake(intake)


def _pack_intake(intake: Intake) -> bytes:
    fields = {key: value for key, value in vars(intake).items() if key != "images"}
    return pack({**fields, "shape": intake.images.shape}, intake.images.tobytes())


def describe(error: BaseException) -> str:
    """Return an exception and where it was raised, in one line."""
    frames = traceback.extract_tb(error.__traceback__)[-3:]
    places = " < ".join(f"{Path(one.filename).name}:{one.lineno}" for one in reversed(frames))
    return ascii(f"{type(error).__name__}: {error}"[:300])[1:-1] + f" at {places}"


def _limit_memory(most: int) -> None:
    """Let this process use some bytes more than it does now; only Linux can tell how much."""
    if sys.platform == "win32":
        return
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        used = pages * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + most, used + most))
    except (ImportError, OSError, ValueError):
        return


def _limit_cpu(seconds: int) -> None:
    """Let this process be ended by SIGXCPU once it has computed some seconds more."""
    if sys.platform == "win32":
        return
    try:
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_CPU)
        resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time()) + 1 + seconds, most))
    except (ImportError, OSError, ValueError):
        return


def main() -> None:
    """Answer tasks until the input ends."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the server decides when its workers end
    warnings.simplefilter("ignore")  # Pillow warns of each damaged tag
    logging.disable()
    gc.set_threshold(1_000_000)  # else a body of many lists takes five times as long to parse
    limits = Limits(**json.loads(sys.argv[1]))
    _limit_memory(limits.worker_bytes)
    received, sent = sys.stdin.buffer, os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # a stray print shall not be a message
    message: bytes | None = pack({})  # it is ready
    while message:
        sent.write(message)
        sent.flush()
        task = _receive(received)
        _limit_cpu(limits.worker_cpu_seconds)
        message = answer(*task, limits) if task else None


def _receive(stream: IO[bytes]) -> tuple[dict[str, Any], bytes] | None:
    header = stream.read(MESSAGE.size)
    if len(header) < MESSAGE.size:
        return None
    text, data = (stream.read(length) for length in MESSAGE.unpack(header))
    return json.loads(text), data


if __name__ == "__main__":
    main()
