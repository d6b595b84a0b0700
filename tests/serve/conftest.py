"""Real server processes for the tests, with a model that was trained for seconds."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from conftest import Start, owned_processes
from vggnet.data.dataset import LabeledImages

Forks = Callable[[], AbstractContextManager[Start]]

SITE = "http://app.example:3000"
TOKEN = "a-long-token"

LIMITED = """
import json, logging, sys
import vggnet
from vggnet.serve.access import Access
from vggnet.serve.limits import Limits
from vggnet.serve.server import serve
model, files, limits = sys.argv[1:]
if int(files):
    import resource
    resource.setrlimit(resource.RLIMIT_NOFILE, (int(files), int(files)))
logging.basicConfig(format="vggnet: %(message)s")
serve(
    {"model": vggnet.load(model)}, Access("127.0.0.1"), host="127.0.0.1", port=0, threads=1,
    limits=Limits(**json.loads(limits)), announce=lambda url: print("Serving at", url, flush=True),
)
"""
"""Serves a model with other limits than the command line's, and perhaps few open files."""


@dataclass(frozen=True)
class Running:
    """A server that listens."""

    url: str
    process: Any
    log: Path
    """What it wrote to standard error."""

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        url = httpx.URL(self.url)
        assert url.port is not None
        return url.host, url.port

    def memory_mib(self) -> float:
        """Return the peak memory of the server and its workers together."""
        own = self.process.pid
        return sum(map(_peak_memory, [own, *processes(own)]))


def processes(parent: int) -> list[int]:
    """Return the numbers of the processes that a process started, and of those they started."""
    threads = Path(f"/proc/{parent}/task").iterdir()
    own = [int(one) for thread in threads for one in (thread / "children").read_text().split()]
    return [*own, *(below for one in own for below in processes(one))]


def _peak_memory(process: int) -> float:
    status = Path(f"/proc/{process}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


@contextmanager
def running(forks: Forks, log: Path, *command: str) -> Iterator[Running]:
    """Run a server until the end of the context."""
    with log.open("w") as errors, forks() as fork:
        process = fork(*command, stderr=errors)
        assert process.stdout is not None
        line = process.stdout.readline()
        assert " at http://" in line, log.read_text()
        yield Running(line.split(" at ")[1].split()[0].rstrip("/"), process, log)


@pytest.fixture(scope="session")
def serving(
    digit_model: Path, tmp_path_factory: pytest.TempPathFactory, forks: Forks
) -> Callable[..., AbstractContextManager[Running]]:
    """Run `vggnet serve` on a free port, as a context; by default with one small model."""

    def run(
        *arguments: object, models: tuple[Path, ...] = (digit_model,)
    ) -> AbstractContextManager[Running]:
        options = ("--port", "0", "--threads", "1", *map(str, arguments))
        log = tmp_path_factory.mktemp("log") / "stderr"
        return running(forks, log, "-m", "vggnet", "serve", *map(str, models), *options)

    return run


@pytest.fixture(scope="session")
def server(serving: Callable[..., Running]) -> Iterator[Running]:
    """A server with the default options, which many tests share."""
    with serving() as one:
        yield one


@pytest.fixture(scope="session")
def public(serving: Any, digit_model: Path, tmp_path_factory: Any) -> Iterator[Running]:
    """A server of two models for other machines, another site's pages and a proxy."""
    second = tmp_path_factory.mktemp("second") / "second.pth"
    second.write_bytes(digit_model.read_bytes())
    options = ("--allow-origin", SITE, "--trusted-proxy", "127.0.0.1")
    options += ("--allow-host", "digits.example", "--root-path", "/digits", "--host", "0.0.0.0")
    with serving(*options, models=(digit_model, second)) as one:
        yield one


@pytest.fixture(scope="session")
def protected(serving: Any) -> Iterator[Running]:
    """A server with a token."""
    with serving("--token", TOKEN, "--host", "0.0.0.0") as one:
        yield one


@contextmanager
def proxy(upstream: Running, host: str) -> Iterator[str]:
    """Run a reverse proxy that publishes a server under /digits; yields the URL of that.

    Args:
        upstream: The server.
        host: "upstream" to send the server's own address as Host, or "client" to pass it on.
    """
    program = Path(__file__).with_name("proxy.py")
    with owned_processes() as start:
        process = start(sys.executable, program, upstream.url, host, stderr=None)
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}/digits"


@pytest.fixture(scope="session")
def limited(
    digit_model: Path, tmp_path_factory: pytest.TempPathFactory, forks: Forks
) -> Callable[..., AbstractContextManager[Running]]:
    """Run a server with some limits, as a context; `files` is how many it may open, or 0."""

    def run(files: int = 0, **limits: float) -> AbstractContextManager[Running]:
        log = tmp_path_factory.mktemp("log") / "stderr"
        command = ("-c", LIMITED, str(digit_model), str(files), json.dumps(limits))
        return running(forks, log, *command)

    return run


@pytest.fixture
def client(server: Running) -> Iterator[httpx.Client]:
    """A client of it."""
    with httpx.Client(base_url=server.url, timeout=60) as client:
        yield client


def as_file(image: np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    """Return an array as an image file."""
    file = BytesIO()
    Image.fromarray(image).save(file, kind, **options)
    return file.getvalue()


def ask(app: Any, path: str = "/") -> httpx.Response:
    """Send a request to an application in this process."""

    async def get() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.get(path)

    return asyncio.run(get())


def read_metrics(client: httpx.Client) -> dict[str, float]:
    """Return Prometheus' text format as name to value."""
    lines = client.get("/metrics").text.splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


@pytest.fixture(scope="session")
def sheet(few: LabeledImages) -> np.ndarray:
    """The first training image, a 5, in dark ink on a white sheet of 120×160."""
    paper = np.full((160, 120), 255, np.uint8)
    paper[30:114, 20:104] = 255 - few.images[0, 0].repeat(3, 0).repeat(3, 1)
    return paper
