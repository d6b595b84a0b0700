"""Request a server's /healthz, in turn with the same from a bare server, until the input ends.

    python benchmarks/stress/health_latency.py 8000

The bare server is an asyncio loop in a process of its own that does nothing else: what it takes is
what the machine costs any program. Prints "ready", and at the end a JSON list of pairs of seconds.
`hostile_requests.py` runs this as a process of its own, so that its load does not count.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import select
import signal
import sys
import time
from argparse import ArgumentParser
from contextlib import suppress
from multiprocessing import Pipe

EVERY = 0.02
"""Seconds between two pairs."""


async def serve_nothing(started: asyncio.Future[int]) -> None:
    """Answer every request with 200."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, OSError):
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    started.set_result(server.sockets[0].getsockname()[1])
    await server.serve_forever()


def start_bare_server() -> tuple[int, int]:
    """Fork a bare server; return its process and its port."""
    received, sent = Pipe(duplex=False)
    process = os.fork()
    if process:
        return process, received.recv()

    async def run() -> None:
        started = asyncio.get_running_loop().create_future()
        started.add_done_callback(lambda port: sent.send(port.result()))
        await serve_nothing(started)

    asyncio.run(run())
    os._exit(0)


def probe(ports: tuple[int, int]) -> list[list[float]]:
    """Request both servers in turn until standard input ends; return seconds, a row per pair."""
    clients = [http.client.HTTPConnection("127.0.0.1", port, timeout=60) for port in ports]
    rows = []
    while not select.select([sys.stdin], [], [], EVERY)[0]:
        row = []
        for client in clients:
            started = time.perf_counter()
            client.request("GET", "/healthz")
            response = client.getresponse()
            response.read()
            row.append(time.perf_counter() - started)
            assert response.status == 200, response.status
        rows.append(row)
    return rows


def main() -> None:
    parser = ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("port", type=int)
    options = parser.parse_args()
    process, port = start_bare_server()
    try:
        print("ready", flush=True)
        print(json.dumps(probe((options.port, port))), flush=True)
    finally:
        os.kill(process, signal.SIGKILL)


if __name__ == "__main__":
    main()
