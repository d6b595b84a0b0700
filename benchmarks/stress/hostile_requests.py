"""Send hostile requests to `vggnet serve`: none may break, block, exhaust or outlive it.

    python benchmarks/stress/hostile_requests.py mnist_vggnet.pth --cases 5000

The script starts a server on a free port and sends it, 8 at a time, images that are expensive to
decode, damaged images, nested and ragged JSON, tensors with repeated outputs, broken forms, and
requests that schemathesis generates from the server's OpenAPI description. Other connections
send half a request, very many headers or chunks, or do not read their responses. Meanwhile
`/healthz` is requested all the time. Before, servers get SIGTERM while such requests are
running, one kind at a time.

It reports the statuses, the slowest error, the largest response, the peak memory of the server
with its workers, the latency of `/healthz`, and the seconds from SIGTERM to the end. The exit
code is 1 after an internal error, a response over its limit, or an end that took too long.

`/healthz` is requested by a process of its own, in turn with the same request to a bare server:
an asyncio loop that does nothing else. What the bare server takes is what the machine costs any
program. As root, the script gives the server a higher priority (nice -10), for its latency shall
not depend on what else the machine computes.
"""

from __future__ import annotations

import io
import json
import os
import random
import re
import socket
import statistics
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from PIL import Image
from schemathesis import GenerationMode

sys.path.append(str(Path(__file__).parents[1]))
from measuring import build_parser, render_machine, write_report

from vggnet.serve.limits import Limits

LIMITS = Limits()
AT_ONCE = 8
PIECE = 500
"""Requests after which the report is written anew."""
PREDICT, INFER = "/predict", "/v2/models/vggnet/infer"
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")

Case = tuple[str, bytes, str]
"""Path, body and content type."""


def encode(pixels: np.ndarray, kind: str, **options: object) -> bytes:
    """Return an array as an image file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def many_scans(rng: random.Random) -> Case:
    """A progressive JPEG with up to 70,000 scans of up to 4 million pixels."""
    room = rng.choice([3_000, 100_000, 990_000])
    return PREDICT, _repeat_scan(rng.choice([8, 500, 2000]), room), "image/jpeg"


@cache
def _repeat_scan(side: int, room: int) -> bytes:
    data = encode(np.full((side, side), 200, np.uint8), "JPEG", progressive=True)
    last = data.rfind(b"\xff\xda")
    scan = data[last:-2]
    return data[:last] + scan * (room // len(scan)) + data[-2:]


def many_chunks(rng: random.Random) -> Case:
    """A small image among very many chunks, comments or extensions."""
    kind = rng.choice(["JPEG", "PNG", "GIF"])
    data = encode(np.zeros((9, 9), np.uint8), kind)
    at, chunk = {
        "JPEG": (2, b"\xff\xfe\0\2"),
        "PNG": (33, struct.pack(">I4sI", 0, b"teXt", zlib.crc32(b"teXt"))),
        "GIF": (data.rfind(b",", 0, 900), b"!\xfe\0"),
    }[kind]
    return PREDICT, data[:at] + chunk * (990_000 // len(chunk)) + data[at:], "image/png"


def bomb(rng: random.Random) -> Case:
    """A PNG of some KB that has up to 900 million pixels, most over the limit."""
    body = _squeeze(rng.choice([1_999, 2_000, 2_001, 13_000, 30_000]), rng.choice([1, 8]))
    return PREDICT, body, "application/octet-stream"


@cache
def _squeeze(side: int, depth: int) -> bytes:
    header = struct.pack(">IIBBBBB", side, side, depth, 0, 0, 0, 0)
    rows = zlib.compress(bytes((1 + -(-side * depth // 8)) * min(side, 2_001)), 9)
    parts = ((b"IHDR", header), (b"IDAT", rows), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    )


def damaged(rng: random.Random) -> Case:
    """An image with changed bytes, most of them in its header, or cut off."""
    side = rng.choice([1, 28, 280])
    pixels = np.random.default_rng(rng.randrange(99)).integers(0, 256, (side, side), np.uint8)
    data = bytearray(encode(pixels, rng.choice(FORMATS)))
    for _ in range(rng.choice([0, 1, 3, 20])):
        data[rng.randrange(min(len(data), rng.choice([60, 10_000])))] = rng.randrange(256)
    return PREDICT, bytes(data[: rng.choice([len(data), rng.randrange(len(data))])]), ""


def overlapping_tags(rng: random.Random) -> Case:
    """EXIF data whose tags all point to the same large value."""
    count, size = rng.choice([10, 1_000, 60_000]), rng.choice([100, 200_000])
    return PREDICT, _overlap(count, size), "image/png"


@cache
def _overlap(count: int, size: int) -> bytes:
    tags = b"".join(struct.pack("<HHII", tag, 7, size, 14 + 12 * count) for tag in range(count))
    exif = b"II*\0" + struct.pack("<IH", 8, count) + tags + bytes(4) + bytes(min(size, 200_000))
    return encode(np.zeros((9, 9), np.uint8), "PNG", exif=exif)


def noise_images(rng: random.Random) -> Case:
    """A valid image that is as expensive as one can be: many specks, or all the pixels."""
    steps = rng.choice([2, 3]), rng.choice([2, 3])
    body = _speckle(rng.choice([512, 1_999]), *steps, rng.choice(["PNG", "GIF", "WEBP"]))
    return PREDICT, body, "image/png"


@cache
def _speckle(side: int, down: int, across: int, kind: str) -> bytes:
    dots = np.full((side, side), 255, np.uint8)
    dots[::down, ::across] = 0
    return encode(dots, kind)


def nested_value(rng: random.Random) -> bytes:
    """JSON that is deep, ragged, long, or not made of pixels."""
    depth, many = rng.choice([3, 5, 33, 65, 1_000, 100_000]), rng.choice([1, 100, 200_000])
    inner = rng.choice([b"0", b"[]", b'"\\ud800"', b"1e999", b"9" * 5_000, b"NaN", b'"x"', b"{}"])
    kinds = (
        b"[" * depth + inner + b"]" * depth,
        b"[" + b",".join([inner] * (many if len(inner) < 5 else 1)) + b"]",
        b"[" + b"[0,0]," * many + b"[0]]",
        b"[" + b"[[[0]]]," * min(many, 100_000) + b"[[[[0]]]]]",
        json.dumps([[rng.choice([0, 255, 256, -1, 0.5])] * 28] * 28).encode(),
        json.dumps([[[0] * 28] * 28] * rng.choice([1, 256, 257])).encode(),
        json.dumps(["A" * 4 * rng.randrange(40)] * rng.choice([1, 33])).encode(),
    )
    return rng.choice(kinds)[:990_000]


def nested_json(rng: random.Random) -> Case:
    """Such JSON where images belong."""
    key = rng.choice([b"image", b"images", b"pixels"])
    return PREDICT, b'{"%s":%s}' % (key, nested_value(rng)), "application/json"


def tensors(rng: random.Random) -> Case:
    """Requests of the Open Inference Protocol: outputs repeated, odd names, shapes and data."""
    outputs = [{"name": rng.choice(["probabilities", "classes", "x"])}] * rng.choice([1, 2, 22_000])
    count = rng.choice([0, 1, 40, 256, 10**18])
    inputs = {"name": "images", "datatype": "UINT8", "shape": [count, 1, 28, 28], "data": "DATA"}
    body = json.dumps({"id": rng.choice(["a", "\ud800"]), "inputs": [inputs], "outputs": outputs})
    flat = b"[" + b",".join([b"0"] * 784 * min(count, 256)) + b"]"
    data = rng.choice([flat, flat, nested_value(rng)])
    return INFER, body.encode().replace(b'"DATA"', data)[:990_000], "application/json"


def forms(rng: random.Random) -> Case:
    """Forms with very many parts, long headers, or no end."""
    part = b'--b\r\nContent-Disposition: form-data; name="f"; filename="a"\r\n\r\n'
    many = rng.choice([1, 33, 9_000])
    body = rng.choice([part + b"x\r\n", part[:20], b"--b\r\n", b"\r\n", b"A: b\r\n"]) * many
    ends = (b"--b--\r\n", b"", b"\r\n--b")
    kind = rng.choice(["multipart/form-data; boundary=b", "multipart/form-data"])
    return PREDICT, body + rng.choice(ends), kind


GENERATORS: tuple[Callable[[random.Random], Case], ...] = (
    many_scans, many_chunks, bomb, damaged, damaged, overlapping_tags, noise_images,
    nested_json, nested_json, tensors, forms,
)  # fmt: skip


@dataclass
class Findings:
    """What came back."""

    statuses: Counter[str] = field(default_factory=Counter)
    slowest_error: float = 0.0
    largest_response: int = 0
    slowest_kind: str = ""

    def add(self, kind: str, status: int, size: int, seconds: float) -> None:
        """Record a response."""
        self.statuses[str(status)] += 1
        self.largest_response = max(self.largest_response, size)
        if status >= 400 and seconds > self.slowest_error:
            self.slowest_error, self.slowest_kind = seconds, kind


def descendants(process: int) -> Iterator[int]:
    """Yield the numbers of a process and of those below it."""
    yield process
    with suppress(OSError):
        for thread in Path(f"/proc/{process}/task").iterdir():
            for child in (thread / "children").read_text().split():
                yield from descendants(int(child))


class Server:
    """A running `vggnet serve`.

    Args:
        model: File of the model.
    """

    def __init__(self, model: Path) -> None:
        command = [sys.executable, "-m", "vggnet", "serve", str(model), "--port", "0"]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().split(" at ")[1].split()[0].rstrip("/")
        self.address = ("127.0.0.1", int(self.url.rpartition(":")[2]))
        self.peak_mib = 0.0
        transport = httpx.HTTPTransport(retries=9)
        with httpx.Client(base_url=self.url, transport=transport, timeout=120) as client:
            client.get("/readyz").raise_for_status()
        with suppress(OSError):  # of the main thread, which is the event loop, and of the session
            os.setpriority(os.PRIO_PROCESS, self.process.pid, -10)
            Path(f"/proc/{self.process.pid}/autogroup").write_text("-10")

    def send(self, case: Case) -> httpx.Response:
        """Send a case on its own connection."""
        path, body, kind = case
        headers = {"content-type": kind} if kind else {}
        return httpx.post(self.url + path, content=body, headers=headers, timeout=120)

    def memory_mib(self) -> float:
        """Return the memory of the server and its workers."""
        total = 0.0
        for number in descendants(self.process.pid):
            with suppress(OSError):
                status = Path(f"/proc/{number}/status").read_text()
                found = re.search(r"VmRSS:\s+(\d+)", status)
                total += int(found[1]) / 1024 if found else 0
        return total

    def internal_errors(self) -> int:
        """Return the counter of internal errors."""
        text = httpx.get(f"{self.url}/metrics", timeout=60).text
        return int(float(text.partition("\nvggnet_errors_total ")[2].split()[0]))

    def stop(self) -> float:
        """Send SIGTERM; return the seconds until the process ended."""
        started = time.perf_counter()
        self.process.terminate()
        self.process.wait(timeout=120)
        return time.perf_counter() - started


@contextmanager
def watch(server: Server) -> Iterator[list[list[float]]]:
    """Measure latencies and memory for as long as the context lasts; see health_latency.py."""
    script = Path(__file__).with_name("health_latency.py")
    command = [sys.executable, str(script), str(server.address[1])]
    latencies: list[list[float]] = []
    end = threading.Event()

    def look() -> None:
        while not end.wait(0.05):
            server.peak_mib = max(server.peak_mib, server.memory_mib())

    thread = threading.Thread(target=look)
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as prober:
        assert prober.stdout is not None
        assert prober.stdout.readline() == "ready\n"
        thread.start()
        try:
            yield latencies
        finally:
            end.set()
            thread.join()
            latencies += json.loads(prober.communicate()[0])


@contextmanager
def odd_connections(server: Server, count: int = 50) -> Iterator[None]:
    """Keep connections that send half a request or much that is no body, or read nothing."""
    head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\n"
    chunked = head + b"Transfer-Encoding: chunked\r\n\r\n"
    sent = (
        head,
        head + b"Content-Length: 900000\r\n\r\n" + bytes(400_000),
        head + b"a:\r\n" * 60_000,
        chunked + b"1\r\nx\r\n" * 100_000,
    )
    much = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 200
    end = threading.Event()

    def hold(number: int) -> None:
        while not end.is_set():
            with suppress(OSError), socket.create_connection(server.address, 10) as connection:
                connection.sendall((*sent, much)[number % 5])
                end.wait(4)

    threads = [threading.Thread(target=hold, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        end.set()
        for thread in threads:
            thread.join()


def give_way() -> None:
    """Lower the priority of the calling thread: making cases shall not slow the server."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)


def send_generated(server: Server, cases: int, seed: int, findings: Findings) -> None:
    """Send the cases of this script's generators."""

    def send(number: int) -> None:
        rng = random.Random(seed + number)
        generate = GENERATORS[number % len(GENERATORS)]
        case = generate(rng)
        started = time.perf_counter()
        response = server.send(case)
        seconds = time.perf_counter() - started
        findings.add(generate.__name__, response.status_code, len(response.content), seconds)
        if response.status_code == 500:
            print(f"500: {generate.__name__}, seed {seed + number}: {response.text}")

    with ThreadPoolExecutor(AT_ONCE, initializer=give_way) as pool:
        list(pool.map(send, range(cases)))


def send_described(server: Server, cases: int, findings: Findings) -> None:
    """Send cases that schemathesis makes of the OpenAPI description, half of them valid."""
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    operations: list[Any] = [found.ok() for found in schema.get_all_operations()]
    with_body = [operation for operation in operations if operation.body]
    for operation in with_body:
        for mode in GenerationMode:

            @settings(
                max_examples=cases // (2 * len(with_body)) + 1,
                deadline=None,
                database=None,
                phases=[Phase.generate],
                suppress_health_check=[*HealthCheck],
            )
            @given(case=operation.as_strategy(generation_mode=mode))
            def send(case: Any) -> None:
                started = time.perf_counter()
                response = case.call(timeout=120)
                seconds = time.perf_counter() - started
                findings.add("schemathesis", response.status_code, len(response.content), seconds)
                if response.status_code == 500:
                    print(f"500: {case.as_curl_command()[:2000]}")

            send()


def stop_under(model: Path, generate: Callable[[random.Random], Case]) -> float:
    """Return the seconds from SIGTERM to the end, while cases of one kind are running."""
    server = Server(model)
    end = threading.Event()

    def send(number: int) -> None:
        give_way()
        rng = random.Random(number)
        while not end.is_set():
            with suppress(httpx.HTTPError):
                server.send(generate(rng))

    with ExitStack() as stack:
        threads = [threading.Thread(target=send, args=(number,)) for number in range(AT_ONCE)]
        for thread in threads:
            thread.start()
            stack.callback(thread.join)
        stack.callback(end.set)
        time.sleep(1)
        return server.stop()


def measure(
    model: Path, cases: int, described: float, seed: int
) -> Iterator[tuple[Findings, dict[str, Any]]]:
    """Stop servers under load, then run everything against one; yield figures at each piece."""
    kinds = list(dict.fromkeys(GENERATORS))
    stops = {kind.__name__: round(stop_under(model, kind), 1) for kind in kinds}
    server, findings, load = Server(model), Findings(), os.getloadavg()[0]
    with watch(server) as idle:
        time.sleep(5)
    busy: list[list[float]] = []
    for first in range(0, cases, PIECE):
        count = min(PIECE, cases - first)
        own = round(count * (1 - described))
        with watch(server) as latencies, odd_connections(server):
            send_generated(server, own, seed + first, findings)
            send_described(server, count - own, findings)
        busy += latencies
        yield (
            findings,
            {
                "statuses": dict(sorted(findings.statuses.items())),
                "internal_errors": server.internal_errors(),
                "load_average": [load, os.getloadavg()[0]],
                "nice": os.getpriority(os.PRIO_PROCESS, server.process.pid),
                "slowest_error_ms": round(1000 * findings.slowest_error),
                "slowest_error_kind": findings.slowest_kind,
                "largest_response_bytes": findings.largest_response,
                "peak_memory_mib": round(server.peak_mib),
                "latencies_ms": {
                    f"{name}, {when}": _describe_latencies([row[column] for row in rows])
                    for when, rows in (("idle", idle), ("under attack", busy))
                    for column, name in enumerate(("/healthz", "bare server"))
                },
                "healthz_over_100_ms": sum(row[0] > 0.1 for row in busy),
                "bare_server_over_100_ms": sum(row[1] > 0.1 for row in busy),
                "stop_seconds": stops,
            },
        )
    server.stop()


def _describe_latencies(latencies: list[float]) -> dict[str, float]:
    quantiles = statistics.quantiles(latencies, n=1000)
    found = {"p50": quantiles[499], "p99": quantiles[989], "p99.9": quantiles[998]}
    found["max"] = max(latencies)
    return {"n": len(latencies), **{key: round(1000 * value, 1) for key, value in found.items()}}


def render(found: dict[str, Any], cases: int) -> str:
    """Render the figures as a Markdown page."""
    latencies = "\n".join(
        f"| {name} | " + " | ".join(f"{value:,}" for value in values.values()) + " |"
        for name, values in found["latencies_ms"].items()
    )
    stops = found["stop_seconds"]
    return f"""# Hostile requests

{cases:,} requests, {AT_ONCE} at a time, while 50 connections send half requests, very many headers
or chunks, or read nothing. Clients and server share {os.cpu_count()} cores with other programs: the
load average was {found["load_average"][0]:.1f} at the start and {found["load_average"][1]:.1f} at
the end, so the server ran at priority {found["nice"]}. The bare server is an asyncio loop that does
nothing but answer: what it takes, the machine costs any program.

- responses by status: {found["statuses"]}; internal errors: {found["internal_errors"]}
- slowest error: {found["slowest_error_ms"]:,} ms ({found["slowest_error_kind"]})
- largest response: {found["largest_response_bytes"]:,} bytes
- peak memory of the server with its workers: {found["peak_memory_mib"]:,} MiB
- SIGTERM to the end, {AT_ONCE} requests of one kind running: {min(stops.values())} to \
{max(stops.values())} s ({len(stops)} kinds)

Latencies above 100 ms under attack: {found["healthz_over_100_ms"]} of `/healthz`, \
{found["bare_server_over_100_ms"]} of the bare server.

| ms | n | p50 | p99 | p99.9 | max |
|---|---|---|---|---|---|
{latencies}

{render_machine()}"""


def main() -> None:
    parser = build_parser(__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--cases", type=int, default=5000, help="all requests")
    parser.add_argument("--described", type=float, default=0.2, help="fraction of schemathesis")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for findings, found in measure(options.model, options.cases, options.described, options.seed):
        write_report(options.output, render(found, findings.statuses.total()), found)
    too_large = found["largest_response_bytes"] > LIMITS.response_bytes
    too_late = max(found["stop_seconds"].values()) > LIMITS.end_seconds + 1
    sys.exit(1 if found["internal_errors"] or too_large or too_late else 0)


if __name__ == "__main__":
    main()
