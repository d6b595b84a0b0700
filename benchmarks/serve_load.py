"""Measure the throughput, overload behavior and memory of `vggnet serve`.

    python benchmarks/serve_load.py mnist_vggnet.pth --output benchmarks/results/serve_load

The script starts a server on a free port and sends requests from this process:

1. `--requests` images (a PNG of a digit) over 32 connections, in rounds that alternate with as
   many requests to `/healthz`, which computes nothing, and to a plain app of FastAPI and ONNX
   Runtime, if `--onnx` names the exported model. The app shrinks the image to 28×28 pixels and
   runs the network: no search for the drawing, no batches, no limits;
2. images over 20 connections, in rounds that alternate with the same while 200 other connections
   send their headers one byte at a time, and connect again when the server closes them;
3. images over three times as many connections as the server's queue holds. Some must get 503, all
   others 200.

It also reports the CPU time per request and the memory of the server with its workers. Clients
and servers share the cores, so a server on its own would be faster.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from urllib.parse import urlsplit

from measuring import build_parser, render_machine, write_report
from PIL import Image, ImageOps

from vggnet.data.catalog import CATALOG
from vggnet.data.known import load_test
from vggnet.serve.limits import Limits

CONNECTIONS = 32
GOOD, SLOW = 20, 200
"""Connections beside slow ones, and slow ones."""
ROUNDS = 5
PLAIN_APP = """
import io, socket, sys
import fastapi, numpy, onnxruntime, uvicorn
from PIL import Image, ImageOps
app, session = fastapi.FastAPI(), onnxruntime.InferenceSession(sys.argv[1])

@app.post("/predict")
def predict(body: bytes = fastapi.Body(media_type="image/png")):
    image = ImageOps.invert(Image.open(io.BytesIO(body)).convert("L")).resize((28, 28))
    logits, shares = session.run(None, {"pixels": numpy.asarray(image)[None, None]})
    return {"class": int(shares[0].argmax()), "probabilities": shares[0].tolist()}

listener = socket.create_server(("127.0.0.1", 0))
listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
print(f"Serving at http://127.0.0.1:{listener.getsockname()[1]}/", flush=True)
uvicorn.Server(uvicorn.Config(app, log_level="error")).run(sockets=[listener])
"""
"""What one would write in a few minutes."""

TOO_MANY = 3 * Limits().waiting_images // Limits().body_weight


@dataclass
class Load:
    """Responses to some requests."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    """Of the server and its workers."""
    latencies: list[float] = field(default_factory=list)
    """Seconds of each response with status 200."""
    statuses: Counter[int] = field(default_factory=Counter)

    def summary(self) -> dict[str, object]:
        """Return rates and quantiles as plain values."""
        quantiles = statistics.quantiles(self.latencies, n=100)
        return {
            "requests": self.statuses.total(),
            "statuses": {str(status): count for status, count in self.statuses.items()},
            "requests_per_second": round(self.statuses.total() / self.seconds, 1),
            "answers_per_second": round(len(self.latencies) / self.seconds, 1),
            "cpu_ms": round(1000 * self.cpu_seconds / self.statuses.total(), 2),
            "p50_ms": round(1000 * quantiles[49], 2),
            "p99_ms": round(1000 * quantiles[98], 2),
        }


async def ask(url: str, request: bytes, count: int, connections: int, load: Load) -> None:
    """Send a request `count` times; each connection waits for the response before the next."""
    address = urlsplit(url)
    left = iter(range(count))

    async def client() -> None:
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        for _ in left:
            started = time.perf_counter()
            writer.write(request)
            status = await read_status(reader)
            load.statuses[status] += 1
            if status == 200:
                load.latencies.append(time.perf_counter() - started)
        writer.close()

    started = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(connections)))
    load.seconds += time.perf_counter() - started


@asynccontextmanager
async def slow_connections(url: str) -> AsyncIterator[None]:
    """Keep connections busy that never finish their headers."""
    address = urlsplit(url)

    async def trickle() -> None:
        while True:
            with suppress(ConnectionError):
                _, writer = await asyncio.open_connection(address.hostname, address.port)
                with closing(writer):
                    writer.write(b"GET / HTTP/1.1\r\nX-Slow: ")
                    while not writer.is_closing():
                        writer.write(b"x")
                        await asyncio.sleep(0.5)

    tasks = [asyncio.create_task(trickle()) for _ in range(SLOW)]
    await asyncio.sleep(1)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def read_status(reader: asyncio.StreamReader) -> int:
    """Read one response and return its status."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = head.partition(b"content-length: ")[2].partition(b"\r\n")[0]
    await reader.readexactly(int(length))
    return int(head.split(b" ", 2)[1])


def build_requests(url: str) -> tuple[bytes, bytes]:
    """Return a request with an image of 280×280 pixels, and a health check."""
    host = urlsplit(url).netloc
    test, _ = load_test(CATALOG["mnist"])
    digit = Image.fromarray(test.images[0, 0])
    file = BytesIO()
    ImageOps.invert(digit).resize((280, 280)).save(file, "PNG")
    body = file.getvalue()
    head = f"POST /predict HTTP/1.1\r\nHost: {host}\r\nContent-Type: image/png\r\n"
    image = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    return image, f"GET /healthz HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()


class Server:
    """A process that prints its URL.

    Args:
        command: Arguments of Python.
    """

    def __init__(self, *command: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, *command], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().split(" at ")[1].split()[0]

    def _numbers(self) -> list[int]:
        """Return the ids of the process, its workers and their forks, which do the work."""
        found = [self.process.pid]
        for number in found:  # which grows meanwhile
            for thread in Path(f"/proc/{number}/task").iterdir():
                found += map(int, (thread / "children").read_text().split())
        return found

    def memory_mib(self) -> float:
        """Return the resident memory of all processes."""
        total = 0
        for number in self._numbers():
            lines = Path(f"/proc/{number}/status").read_text().splitlines()
            total += int(next(line for line in lines if line.startswith("VmRSS")).split()[1])
        return total / 1024

    def cpu_seconds(self) -> float:
        """Return the CPU time of all processes so far."""
        ticks = 0
        for number in self._numbers():
            fields = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    async def ask(self, request: bytes, count: int, connections: int, load: Load) -> None:
        """Send a request `count` times, and add its figures to a load."""
        before = self.cpu_seconds()
        await ask(self.url, request, count, connections, load)
        load.cpu_seconds += self.cpu_seconds() - before


async def measure(server: Server, plain: Server | None, requests: int) -> dict[str, object]:
    """Load the servers and return the figures."""
    image, nothing = build_requests(server.url)
    targets = {"predict": (server, image), "nothing": (server, nothing)}
    if plain:
        targets["plain"] = (plain, build_requests(plain.url)[0])
    for one, request in targets.values():
        await one.ask(request, 200, CONNECTIONS, Load())  # warm-up
    before = server.memory_mib()
    loads = {name: Load() for name in targets}
    for _ in range(ROUNDS):
        for name, (one, request) in targets.items():
            await one.ask(request, requests // ROUNDS, CONNECTIONS, loads[name])
    loads |= {"without": Load(), "with": Load()}
    for _ in range(ROUNDS):
        await server.ask(image, requests // ROUNDS, GOOD, loads["without"])
        async with slow_connections(server.url):
            await server.ask(image, requests // ROUNDS, GOOD, loads["with"])
    overload = Load()
    await server.ask(image, requests, TOO_MANY, overload)
    return {
        **{name: load.summary() for name, load in loads.items()},
        "overload": overload.summary(),
        "memory_mib": {"before": round(before, 1), "after": round(server.memory_mib(), 1)},
    }


def render(result: dict[str, dict[str, object]]) -> str:
    """Render the figures as Markdown."""
    titles = {
        "predict": f"`/predict`, {CONNECTIONS} connections",
        "nothing": f"`/healthz`, {CONNECTIONS} connections",
        "plain": f"plain FastAPI and ONNX Runtime, {CONNECTIONS} connections",
        "without": f"`/predict`, {GOOD} connections",
        "with": f"`/predict`, {GOOD} connections beside {SLOW} slow ones",
        "overload": f"`/predict`, {TOO_MANY} connections",
    }
    keys = ("requests", "statuses", "requests_per_second", "cpu_ms", "p50_ms", "p99_ms")
    rows = "\n".join(
        f"| {titles[name]} | " + " | ".join(str(result[name][key]) for key in keys) + " |"
        for name in titles
        if name in result
    )
    memory = result["memory_mib"]
    return f"""# Serving under load

Images of 280×280 pixels as PNG, health checks and a plain app in {ROUNDS} alternating rounds; then
images with and without slow connections, in as many; then an overload. Clients and servers share
the machine. Quantiles are of responses with status 200; CPU
time is the server's with its workers, per request.

| | requests | statuses | requests/s | CPU, ms | p50, ms | p99, ms |
|---|---|---|---|---|---|---|
{rows}

Server and workers used {memory["before"]} MiB before and {memory["after"]} MiB after all requests.

{render_machine()}"""


def main() -> None:
    parser = build_parser(__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--requests", type=int, default=5000)
    parser.add_argument("--onnx", type=Path, help="the same model, exported by vggnet export")
    options = parser.parse_args()
    servers = [Server("-m", "vggnet", "serve", str(options.model), "--port", "0")]
    try:
        if options.onnx:
            servers.append(Server("-c", PLAIN_APP, str(options.onnx)))
        plain = servers[1] if options.onnx else None
        result = asyncio.run(measure(servers[0], plain, options.requests))
    finally:
        for server in servers:
            server.process.terminate()
            server.process.wait()
    write_report(options.output, render(result), result)


if __name__ == "__main__":
    main()
