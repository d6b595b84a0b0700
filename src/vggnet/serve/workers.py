"""Worker processes that read request bodies, each killed if it takes too long.

An image from a stranger may take a decoder minutes, much memory, or crash it. In a process of
its own it cannot hold up the server, and the decoding runs on all cores.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from vggnet.serve.batching import OverloadedError
from vggnet.serve.limits import Limits
from vggnet.serve.pixels import InputError
from vggnet.serve.worker import MESSAGE, pack

_OUT_OF_TIME = getattr(signal, "SIGXCPU", 0)  # Windows has none

LOG = logging.getLogger("vggnet.serve")


class WorkerError(Exception):
    """A worker failed in a way that is a fault of this program."""


class Workers:
    """A pool of worker processes. Use it as an asynchronous context.

    Args:
        count: Number of processes.
        limits: Of time and memory, and for what they read.
    """

    def __init__(self, count: int, limits: Limits) -> None:
        self._count, self._limits = count, limits
        self._processes: set[Process] = set()
        self._idle: asyncio.Queue[Process] = asyncio.Queue()
        self._turn = asyncio.Lock()  # bodies wait in order; a queue alone lets later ones pass
        self._restarts: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Workers:
        """Start all processes, and wait until they are ready."""
        await asyncio.gather(*(self._start() for _ in range(self._count)))
        return self

    async def __aexit__(self, *exception: object) -> None:
        """End all processes."""
        for task in self._restarts:
            task.cancel()
        await asyncio.gather(*self._restarts, return_exceptions=True)
        self.kill()
        # `wait` also waits for the pipes, one of which may be full.
        with suppress(TimeoutError):
            async with asyncio.timeout(1):
                await asyncio.gather(*(process.wait() for process in self._processes))

    def kill(self) -> None:
        """End all processes at once, whatever they do."""
        for process in self._processes:
            _kill(process)

    async def read(self, task: Mapping[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
        """Let a worker read a body.

        Returns:
            The fields of `Intake`, with the shape of its images in their place, and the images.

        Raises:
            InputError: The body cannot be used, or takes too long.
            OverloadedError: No worker is free in time.
            WorkerError: The worker crashed.
        """
        process = await self._take()
        try:
            async with asyncio.timeout(self._limits.worker_seconds):
                fields, data = await _ask(process, pack(dict(task), body))
        except TimeoutError:
            self._replace(process)
            raise InputError("reading the body takes too long") from None
        except (asyncio.IncompleteReadError, OSError):
            self._replace(process)
            raise WorkerError("a worker process ended while it read a body") from None
        except BaseException:
            self._replace(process)
            raise
        self._idle.put_nowait(process)
        if "ended" in fields:
            if fields["ended"] == -_OUT_OF_TIME:
                raise InputError("reading the body takes too long")
            raise WorkerError(f"a worker ended with {fields['ended']} while it read a body")
        if "crash" in fields:
            raise WorkerError(fields["crash"])
        if "error" in fields:
            raise InputError(fields["error"], hint=fields["hint"])
        return fields, data

    async def _take(self) -> Process:
        try:
            async with asyncio.timeout(self._limits.wait_seconds):
                async with self._turn:
                    return await self._idle.get()
        except TimeoutError:
            raise OverloadedError from None

    async def _start(self) -> None:
        """Start a process, and offer it once it is ready."""
        path = os.pathsep.join(entry for entry in sys.path if entry)
        one = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "vggnet.serve.worker"),
            json.dumps(asdict(self._limits)),
            stdin=PIPE,
            stdout=PIPE,
            env={**os.environ, **one, "PYTHONPATH": path},
            process_group=0,
        )
        self._processes.add(process)
        await _receive(process)
        self._idle.put_nowait(process)

    def _replace(self, process: Process) -> None:
        """End a process, and start another one in its place."""
        _kill(process)
        self._processes.discard(process)
        task = asyncio.create_task(self._restart())
        self._restarts.add(task)
        task.add_done_callback(self._restarts.discard)

    async def _restart(self) -> None:
        while True:
            try:
                await self._start()
                return
            except (OSError, asyncio.IncompleteReadError) as error:
                LOG.error("cannot start a worker process, trying again: %s", error)
                await asyncio.sleep(1)


def _kill(process: Process) -> None:
    """End a process and its fork."""
    with suppress(ProcessLookupError):
        if sys.platform == "win32":
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)


async def _ask(process: Process, message: bytes) -> tuple[dict[str, Any], bytes]:
    assert process.stdin is not None
    process.stdin.write(message)
    await process.stdin.drain()
    return await _receive(process)


async def _receive(process: Process) -> tuple[dict[str, Any], bytes]:
    stream = process.stdout
    assert stream is not None
    header = await stream.readexactly(MESSAGE.size)
    text, data = [await stream.readexactly(length) for length in MESSAGE.unpack(header)]
    return json.loads(text), data
