"""Slow, silent and too many clients, and workers that fail, hinder nobody else."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
import numpy as np
import pytest

from vggnet.serve.connection import MOST_CHUNKS
from vggnet.serve.limits import Limits
from vggnet.serve.pixels import InputError
from vggnet.serve.workers import WorkerError, Workers

from .conftest import Running, as_file, processes

HEAD = b"POST /predict HTTP/1.1\r\nHost: localhost\r\n"
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
TASK = {"kind": "predict", "content_type": "", "shape": [1, 28, 28], "reading": "drawn", "most": 9}


@pytest.fixture(scope="module")
def tight(limited: Any) -> Iterator[Running]:
    """A server with short deadlines, few bodies at once, and 400 file descriptors."""
    pytest.importorskip("resource")
    limits = {"header_seconds": 3, "receive_seconds": 3, "send_seconds": 1, "open_bodies": 30}
    with limited(files=400, wait_seconds=60, **limits) as one:
        yield one


@contextmanager
def connections(server: Running, count: int, sent: bytes) -> Iterator[list[socket.socket]]:
    """Open connections that send a part of a request."""
    with ExitStack() as stack:
        opened = []
        for _ in range(count):
            opened.append(stack.enter_context(socket.create_connection(server.address, 60)))
            opened[-1].sendall(sent)
        yield opened


def test_slow_headers_hinder_nobody(tight: Running, sheet: np.ndarray) -> None:
    """While 200 connections never finish their headers, 20 clients get their answers.

    The 200 are told that they are too slow, and closed.
    """
    body = as_file(sheet)

    def ask(_: int) -> list[int]:
        with httpx.Client(base_url=tight.url, timeout=60) as client:
            return [client.post("/predict", content=body).status_code for _ in range(3)]

    with connections(tight, 200, HEAD + b"X-Slow: ") as slow, ThreadPoolExecutor(20) as pool:
        assert list(pool.map(ask, range(20))) == [[200] * 3] * 20
        for one in slow:
            assert one.recv(1000).startswith(b"HTTP/1.1 408 ")
            assert one.recv(1000) == b""


def test_headers_may_not_trickle(tight: Running) -> None:
    """Neither a header now and then nor an answered request extends the deadline."""
    with connections(tight, 1, HEAD) as [new], connections(tight, 1, HEALTH) as [used]:
        assert used.recv(4000).startswith(b"HTTP/1.1 200 ")
        used.sendall(HEAD)
        for connection in (new, used):
            assert trickle(connection) < 600


def trickle(connection: socket.socket) -> int:
    """Send a header every 0.1 seconds; return how many until the connection ended."""
    connection.settimeout(0.1)
    for sent in range(600):
        try:
            connection.sendall(b"X-Slow: 1\r\n")
            if connection.recv(1000) == b"":
                return sent
        except TimeoutError:
            continue
        except OSError:
            return sent
    return 600


def test_slow_bodies_leave_health_alone(tight: Running) -> None:
    """While as many bodies as allowed are unfinished, another is 503, and /healthz is 200."""
    half = HEAD + b"Content-Length: 9\r\n\r\nhalf"
    with (
        connections(tight, 30, half) as slow,
        httpx.Client(base_url=tight.url, timeout=60) as client,
    ):
        busy = client.post("/predict", content=b"{}")
        assert client.get("/healthz").status_code == 200
        assert client.get("/metrics").status_code == 200
        assert (busy.status_code, busy.headers["retry-after"]) == (503, "1")
        for one in slow:
            assert one.recv(1000).startswith(b"HTTP/1.1 408 ")


def test_a_body_may_not_have_very_many_chunks(tight: Running, sheet: np.ndarray) -> None:
    """One byte a chunk, a megabyte would occupy the server for seconds; it is 400 soon."""
    image = as_file(sheet)
    head = HEAD + b"Content-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\n"

    def send(*chunks: bytes) -> bytes:
        with socket.create_connection(tight.address, 60) as one:
            one.sendall(head + b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in chunks))
            return one.recv(1000)

    assert send(image, b"").startswith(b"HTTP/1.1 200 ")
    assert send(*[image[at : at + 9] for at in range(0, len(image), 9)], b"").startswith(
        b"HTTP/1.1 200 "
    )
    assert send(*[b"x"] * (MOST_CHUNKS + 1)).startswith(b"HTTP/1.1 400 ")


def test_pipelined_requests_are_answered_in_turn(tight: Running) -> None:
    """A client that sends requests without waiting for the responses gets all, in their order."""
    paths = ["/healthz", "/nowhere", "/models", "/healthz", "/nowhere"]
    requests = [f"GET {path} HTTP/1.1\r\nHost: localhost\r\n" for path in paths]
    requests[-1] += "Connection: close\r\n"
    with connections(tight, 1, "".join(f"{one}\r\n" for one in requests).encode()) as [one]:
        received = b"".join(iter(lambda: one.recv(65536), b""))
    statuses = re.findall(rb"HTTP/1.1 (\d+) ", received)
    assert statuses == [b"200", b"404", b"200", b"200", b"404"]


def test_slow_readers_are_closed(tight: Running) -> None:
    """A client that does not take its responses loses the connection."""
    request = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with connections(tight, 1, request * 2000) as [one]:
        one.settimeout(0.1)
        for _ in range(600):
            try:
                one.sendall(HEALTH)
                time.sleep(0.1)
            except TimeoutError:
                continue
            except OSError:
                return
        raise AssertionError("the connection is open")


def test_idle_connections_do_not_exhaust_files(tight: Running) -> None:
    """600 connections to a process that may open 400 files are one line in the log."""
    with connections(tight, 600, b"") as idle, contextlib.suppress(ConnectionResetError):
        idle[-1].recv(1000)  # it is closed, for there are too many
    transport = httpx.HTTPTransport(retries=9)
    with httpx.Client(base_url=tight.url, transport=transport, timeout=60) as client:
        assert client.get("/healthz").status_code == 200
    [line] = tight.log.read_text().splitlines()
    assert "connections are open, the limit: closing new ones" in line


def read_after(signal_: signal.Signals, limits: Limits, error: type[Exception]) -> None:
    """Send a signal to the process that reads: one body gets an error, the next one is read."""

    async def run() -> None:
        before = processes(os.getpid())
        async with Workers(1, limits) as workers:
            while len(new := [one for one in processes(os.getpid()) if one not in before]) < 2:
                await asyncio.sleep(0.01)
            os.kill(new[-1], signal_)
            with pytest.raises(error):
                await workers.read(TASK, b"{}")
            with pytest.raises(InputError, match="send an object"):
                await workers.read(TASK, b"{}")

    asyncio.run(run())


def test_a_worker_that_hangs_is_replaced() -> None:
    """A body that takes too long is an error for its client alone."""
    read_after(signal.SIGSTOP, Limits(worker_seconds=3, wait_seconds=60), InputError)


def test_a_worker_that_ends_is_replaced() -> None:
    """A crash while it reads a body is an internal error of that request alone."""
    read_after(signal.SIGKILL, Limits(wait_seconds=60, worker_seconds=60), WorkerError)


def test_a_body_may_not_compute_for_long() -> None:
    """A worker that computes beyond its limit ends, and the body is an error for its client."""
    numbers = b'{"images": [' + b"0," * 20_000_000 + b"0]}"

    async def run() -> None:
        async with Workers(1, Limits(worker_cpu_seconds=0, worker_seconds=300)) as workers:
            with pytest.raises(InputError, match="too long"):
                await workers.read(TASK, numbers)

    asyncio.run(run())
