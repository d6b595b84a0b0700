"""A real server process for the tests, with a model that was trained for seconds."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from vggnet.data.dataset import LabeledImages


@dataclass(frozen=True)
class Running:
    """A server that listens."""

    url: str
    process: subprocess.Popen[str]

    def memory_mib(self) -> float:
        """Return the most memory that the process ever had."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024


@contextmanager
def serving(model: Path, *arguments: str) -> Iterator[Running]:
    """Run `vggnet serve` on a free port until the end of the context."""
    command = [sys.executable, "-m", "vggnet", "serve", str(model), "--port", "0"]
    command += ["--threads", "1", *arguments]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert " is served at http://" in line
            yield Running(line.split(" at ")[1].split(" ")[0].rstrip("/"), process)
        finally:
            process.terminate()


@pytest.fixture(scope="session")
def server(digit_model: Path) -> Iterator[Running]:
    """A server that many tests share."""
    with serving(digit_model) as running:
        yield running


@pytest.fixture
def client(server: Running) -> Iterator[httpx.Client]:
    """A client of it."""
    with httpx.Client(base_url=server.url, timeout=30) as client:
        yield client


def as_file(image: np.ndarray, kind: str = "PNG") -> bytes:
    """Return an array as an image file."""
    file = BytesIO()
    Image.fromarray(image).save(file, kind)
    return file.getvalue()


@pytest.fixture(scope="session")
def sheet(few: LabeledImages) -> np.ndarray:
    """The first training image, a 5, as dark ink on a white sheet of 120×160."""
    paper = np.full((160, 120), 255, np.uint8)
    paper[30:114, 20:104] = 255 - few.images[0, 0].repeat(3, 0).repeat(3, 1)
    return paper
