"""Measure the throughput, overload behavior and memory of `vggnet serve`.

    python benchmarks/serve_load.py mnist_vggnet.pth --output benchmarks/results/serve_load

The script starts a server on a free port and sends requests from this process:

1. `--requests` images (a PNG of a digit) over 32 connections, in rounds that alternate with as
   many requests to `/healthz`, which computes nothing;
2. images over three times as many connections as the server's queue holds. Some must get 503, all
   others 200.

It also reports the server's memory before and after. Clients and server share the cores, so a
server on its own would be faster.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from urllib.parse import urlsplit

from measuring import build_parser, render_machine, write_report
from PIL import Image, ImageOps

from vggnet.data.storage import load_test
from vggnet.serve.limits import Limits

CONNECTIONS = 32
ROUNDS = 5
TOO_MANY = 3 * Limits().waiting_images // Limits().body_weight


@dataclass
class Load:
    """Responses to some requests."""

    seconds: float = 0.0
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


async def read_status(reader: asyncio.StreamReader) -> int:
    """Read one response and return its status."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = head.partition(b"content-length: ")[2].partition(b"\r\n")[0]
    await reader.readexactly(int(length))
    return int(head.split(b" ", 2)[1])


def build_requests(url: str) -> tuple[bytes, bytes]:
    """Return a request with an image of 280×280 pixels, and a health check."""
    host = urlsplit(url).netloc
    digit = Image.fromarray(load_test("mnist").images[0, 0])
    file = BytesIO()
    ImageOps.invert(digit).resize((280, 280)).save(file, "PNG")
    body = file.getvalue()
    head = f"POST /predict HTTP/1.1\r\nHost: {host}\r\nContent-Type: image/png\r\n"
    image = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    return image, f"GET /healthz HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()


def memory_mib(process: int) -> float:
    """Return the resident memory of a process."""
    status = Path(f"/proc/{process}/status").read_text()
    return (
        int(next(row for row in status.splitlines() if row.startswith("VmRSS")).split()[1]) / 1024
    )


async def measure(url: str, process: int, requests: int) -> dict[str, object]:
    """Load a server and return the figures."""
    image, nothing = build_requests(url)
    await ask(url, image, 200, CONNECTIONS, Load())  # warm-up
    before = memory_mib(process)
    loads = {"predict": Load(), "nothing": Load()}
    for _ in range(ROUNDS):
        for name, request in (("predict", image), ("nothing", nothing)):
            await ask(url, request, requests // ROUNDS, CONNECTIONS, loads[name])
    overload = Load()
    await ask(url, image, requests, TOO_MANY, overload)
    return {
        **{name: load.summary() for name, load in loads.items()},
        "overload": overload.summary(),
        "memory_mib": {"before": round(before, 1), "after": round(memory_mib(process), 1)},
    }


def render(result: dict[str, dict[str, object]]) -> str:
    """Render the figures as Markdown."""
    rows = "\n".join(
        f"| {title} | {row['requests']:,} | {row['statuses']} | {row['requests_per_second']} "
        f"| {row['p50_ms']} | {row['p99_ms']} |"
        for name, title in (
            ("predict", f"`/predict`, {CONNECTIONS} connections"),
            ("nothing", f"`/healthz`, {CONNECTIONS} connections"),
            ("overload", f"`/predict`, {TOO_MANY} connections"),
        )
        for row in [result[name]]
    )
    memory = result["memory_mib"]
    return f"""# Serving under load

Images of 280×280 pixels as PNG and health checks in {ROUNDS} alternating rounds, then an overload.
Clients and server share the machine. Quantiles are of responses with status 200.

| | requests | statuses | requests/s | p50, ms | p99, ms |
|---|---|---|---|---|---|
{rows}

The server used {memory["before"]} MiB before and {memory["after"]} MiB after all requests.

{render_machine()}"""


def main() -> None:
    parser = build_parser(__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--requests", type=int, default=5000)
    options = parser.parse_args()
    command = [sys.executable, "-m", "vggnet", "serve", str(options.model), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            url = server.stdout.readline().split(" at ")[1].split(" ")[0]
            result = asyncio.run(measure(url, server.pid, options.requests))
        finally:
            server.terminate()
    write_report(options.output, render(result), result)


if __name__ == "__main__":
    main()
