"""A worker process: reads request bodies from standard input, writes images to standard output.

Both directions carry messages of a JSON object and some bytes (`MESSAGE`). There is no pickle:
what a worker returns is data, even if an image took the worker over.

A fork does the work. If a body ends it, the process answers in its place and forks again: that
takes 1 ms and does not involve the server's event loop, which starting a new process would block
for longer. Both end with their input, and on Linux with the server.
"""

from __future__ import annotations

import ctypes
import gc
import json
import logging
import mmap
import os
import signal
import struct
import sys
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from vggnet.inference.reading import Reading
from vggnet.serve.intake import Input, Intake, read_inference, read_prediction
from vggnet.serve.limits import Limits
from vggnet.serve.pixels import InputError

MESSAGE = struct.Struct(">II")
"""Header of a message: the bytes of its JSON object, and those that follow it."""

_NICE = 5
"""Lower priority than the server's, so that on a busy machine it still answers /healthz. Linux
compares it within a session only."""

_PR_SET_PDEATHSIG = 1
"""Option of Linux's prctl."""


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
        return _pack_intake(intake)
    except InputError as error:
        return pack({"error": str(error), "hint": error.hint})
    except MemoryError:
        return pack({"error": "reading it takes too much memory", "hint": False})
    except Exception as error:
        return pack({"crash": describe(error)})


def _pack_intake(intake: Intake) -> bytes:
    fields = {key: value for key, value in vars(intake).items() if key != "images"}
    return pack({**fields, "shape": intake.images.shape}, intake.images.tobytes())


def describe(error: BaseException) -> str:
    """Return an exception and where it was raised, in one line."""
    frames = traceback.extract_tb(error.__traceback__)[-3:]
    places = " < ".join(f"{Path(one.filename).name}:{one.lineno}" for one in reversed(frames))
    return ascii(f"{type(error).__name__}: {error}"[:300])[1:-1] + f" at {places}"


def _limit_memory(most: int) -> None:
    """Let this process use some bytes more than it does now; only Linux can tell how much.

    Nor may it leave its memory on the disk, as SIGXCPU does where that is configured.
    """
    if sys.platform == "win32":
        return
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        used = pages * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (used + most, used + most))
    except (ImportError, OSError, ValueError):
        return


@contextmanager
def _limited_cpu(seconds: int) -> Iterator[None]:
    """Let this process be ended by SIGXCPU if the context takes more processor time."""
    if sys.platform == "win32":
        yield
        return
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    limit = int(time.process_time()) + 1 + seconds
    limit = limit if most == resource.RLIM_INFINITY else min(limit, most)
    resource.setrlimit(resource.RLIMIT_CPU, (limit, most))
    yield
    resource.setrlimit(resource.RLIMIT_CPU, (most, most))


def _end_with_parent() -> None:
    """Let the kernel end this process when its parent ends; only Linux does."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Worker:
    """Answers tasks until the input ends.

    Args:
        limits: For each body.
        received: Where tasks come from.
        sent: Where answers go.
    """

    def __init__(self, limits: Limits, received: IO[bytes], sent: IO[bytes]) -> None:
        self._limits, self._received, self._sent = limits, received, sent
        self._reading = mmap.mmap(-1, 1)
        """Shared with forks: whether a task was received and not yet answered."""

    def run(self) -> None:
        """Answer tasks in a fork of this process, or where there is no fork, in it."""
        _end_with_parent()
        self._send(pack({}))  # it is ready
        if sys.platform == "win32":
            self._work()
            return
        while True:
            fork = os.fork()
            if not fork:
                try:
                    _end_with_parent()
                    self._work()
                finally:
                    os._exit(0)
            _, status = os.waitpid(fork, 0)
            if not self._reading[0]:
                return
            self._reading[0] = 0
            self._send(pack({"ended": os.waitstatus_to_exitcode(status)}))

    def _work(self) -> None:
        while task := _receive(self._received):
            self._reading[0] = 1
            with _limited_cpu(self._limits.worker_cpu_seconds):
                message = answer(*task, self._limits)
            self._reading[0] = 0
            self._send(message)

    def _send(self, message: bytes) -> None:
        self._sent.write(message)
        self._sent.flush()


def main() -> None:
    """Answer the tasks of the server that started this process."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the server decides when its workers end
    if sys.platform != "win32":
        os.nice(_NICE)
    warnings.simplefilter("ignore")  # Pillow warns of each damaged tag
    logging.disable()
    gc.set_threshold(1_000_000)  # else a body of many lists takes five times as long to parse
    limits = Limits(**json.loads(sys.argv[1]))
    _limit_memory(limits.worker_bytes)
    sent = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # a stray print shall not be a message
    Worker(limits, sys.stdin.buffer, sent).run()


def _receive(stream: IO[bytes]) -> tuple[dict[str, Any], bytes] | None:
    header = stream.read(MESSAGE.size)
    if len(header) < MESSAGE.size:
        return None
    text, data = (stream.read(length) for length in MESSAGE.unpack(header))
    return json.loads(text), data


if __name__ == "__main__":
    main()
