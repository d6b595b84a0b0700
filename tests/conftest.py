"""What several tests need: small images, an idle session, the command line in-process."""

from __future__ import annotations

import os

# Two tests run at a time, perhaps on two cores: threads that wait for each other must not spin
# (`vggnet.cli` says why), and where a test does not say how many, there is one. Read by torch.
os.environ.setdefault("GOMP_SPINCOUNT", "20000")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import gzip
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock
from hypothesis import HealthCheck, settings
from matplotlib.figure import Figure

import forked
import vggnet
from vggnet.cli import main
from vggnet.data.batches import Batches
from vggnet.data.dataset import Dataset, LabeledImages
from vggnet.data.preprocessing import Preprocessing
from vggnet.data.storage import load_dataset

# A background job of a shell ignores SIGINT, one under nohup SIGHUP, and so would the processes
# that tests start and interrupt.
for _number in (signal.SIGINT, signal.SIGHUP) if sys.platform != "win32" else ():
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.SIG_DFL)

Start = Callable[..., "subprocess.Popen[str]"]


def _begin(command: list[str], **options: Any) -> subprocess.Popen[str]:
    """Start a process, by default with pipes as text."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, start_new_session=True, **{**pipes, **options})


@contextmanager
def owned_processes(begin: Callable[..., Any] = _begin) -> Iterator[Start]:
    """Yield a function that starts a process; all, and whatever they started, end with it.

    A process is found by a variable in its environment, which those that it starts inherit, even
    if they leave its group or outlive it. Where the system does not show it, by its group.
    """
    mark = uuid.uuid4().hex
    started: list[subprocess.Popen[str]] = []

    def start(
        *command: object, env: Mapping[str, str] | None = None, **options: Any
    ) -> subprocess.Popen[str]:
        marked = {**os.environ, "PYTHONUNBUFFERED": "1", "STARTED_BY_TEST": mark, **(env or {})}
        process = begin([str(part) for part in command], env=marked, **options)
        started.append(process)
        return process

    try:
        yield start
    finally:
        for process in started:
            _kill(process, mark.encode())
            with process:  # closes its pipes
                pass


def _kill(process: subprocess.Popen[str], mark: bytes) -> None:
    process.kill()
    if sys.platform != "win32":
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    for environment in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if mark in environment.read_bytes():
                os.kill(int(environment.parent.name), signal.SIGKILL)


@pytest.fixture
def start() -> Iterator[Start]:
    """Start processes, by default with pipes as text; all end with the test."""
    with owned_processes() as start:
        yield start


@pytest.fixture(scope="session")
def fork_server() -> Iterator[forked.ForkServer]:
    """The process with torch that tests fork."""
    # Its folder has a short name: the address of a socket has at most 108 bytes.
    with TemporaryDirectory() as folder, closing(forked.ForkServer(Path(folder))) as server:
        yield server


@pytest.fixture(scope="session")
def forks(request: pytest.FixtureRequest) -> Callable[[], AbstractContextManager[Start]]:
    """Like `owned_processes`, for Python with some arguments in forks, where the system can."""
    if sys.platform == "win32":
        return partial(owned_processes, _run_python)
    server: forked.ForkServer = request.getfixturevalue("fork_server")
    return partial(owned_processes, server.start)


def _run_python(arguments: list[str], **options: Any) -> subprocess.Popen[str]:
    return _begin([sys.executable, *arguments], **options)


@pytest.fixture
def fork(forks: Callable[[], AbstractContextManager[Start]]) -> Iterator[Start]:
    """Run Python with some arguments in forks of a process with torch; all end with the test."""
    with forks() as fork:
        yield fork


@pytest.fixture
def quick_python(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the code under test run Python in forks where it would start it."""
    if sys.platform != "win32":
        server: forked.ForkServer = request.getfixturevalue("fork_server")
        monkeypatch.setattr(sys, "executable", str(server.python))


settings.register_profile(
    "vggnet", deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("vggnet")


@dataclass(frozen=True)
class Outcome:
    """What a command came to."""

    code: int
    out: str
    err: str


@pytest.fixture(name="vggnet")
def command_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., Outcome]:
    """Run the command line in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["vggnet", *map(str, arguments)])
        capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(bool(stop.code))
        out, err = capsys.readouterr()
        return Outcome(code, out, err)

    return call


_DRAW = Figure.savefig


@pytest.fixture(scope="session", autouse=True)
def _no_drawing() -> Iterator[None]:
    """Lay figures out without drawing them, as in forks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", forked.save_pixel)
        yield


@pytest.fixture
def drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw figures in a test that is about them."""
    monkeypatch.setattr(Figure, "savefig", _DRAW)


@pytest.fixture(scope="session")
def digit_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a small network that saw a quarter of MNIST once, and reads most digits.

    Trained once for all workers of pytest-xdist: they share the parent of their folders.
    """
    shared = tmp_path_factory.getbasetemp()
    folder = (shared.parent if "PYTEST_XDIST_WORKER" in os.environ else shared) / "digit_model"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            settings = {"epochs": 0.25, "threads": 1, "peak_lr": 0.01}
            network = {"stages": [[16], [32]], "hidden": [64]}
            places = {"output": folder / "model.pth", "runs": folder / "runs"}
            folder.mkdir()
            vggnet.train(model=network, train=settings, **places)
    return folder / "model.pth"


@pytest.fixture(scope="session")
def mnist() -> Dataset:
    """The bundled dataset."""
    return load_dataset("mnist")


@pytest.fixture(scope="session")
def digits(mnist: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of IDX files with 128 training and two test images of each MNIST class.

    A run on it takes a fraction of the time that loading, evaluating and plotting MNIST takes.
    """
    folder = tmp_path_factory.mktemp("small") / "digits"
    folder.mkdir()
    for stem, examples, count in (("train", mnist.train, 128), ("t10k", mnist.test, 2)):
        of_each = [np.flatnonzero(examples.labels == label)[:count] for label in range(10)]
        chosen = np.sort(np.concatenate(of_each))
        images, labels = examples.images[chosen, 0], examples.labels[chosen]
        (folder / f"{stem}-images-idx3-ubyte").write_bytes(idx_bytes(images))
        (folder / f"{stem}-labels-idx1-ubyte").write_bytes(idx_bytes(labels))
    return folder


@pytest.fixture(scope="session")
def few(mnist: Dataset) -> LabeledImages:
    """The first 300 training images: two full batches of 128 and a short one."""
    return mnist.train.take(np.arange(300), "the first 300 images")


@pytest.fixture(scope="session")
def batches(few: LabeledImages) -> Batches:
    """Those 300 images as batches of 128, in the article's normalization."""
    return make_batches(few)


def make_batches(examples: LabeledImages, device: str = "cpu", **changes: object) -> Batches:
    """Cut images into batches of 128, in the article's normalization."""
    values = {"batch_size": 128, **changes}
    preprocessing = Preprocessing((0.5,), (0.5,), examples.images.shape[-1])
    return Batches(examples, torch.device(device), preprocessing, **values)  # type: ignore[arg-type]


def idx_bytes(array: np.ndarray) -> bytes:
    """Write a uint8 array in the IDX format, independently of the reader under test."""
    header = bytes((0, 0, 8, array.ndim))
    return header + b"".join(n.to_bytes(4, "big") for n in array.shape) + array.tobytes()


def lay_out(folder: Path, dataset: Dataset, zipped: bool) -> Path:
    """Write a dataset's four files in torchvision's layout under `folder`."""
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for stem, examples in (("train", dataset.train), ("t10k", dataset.test)):
        images = idx_bytes(examples.images[:, 0])
        labels = idx_bytes(examples.labels)
        for name, content in (("images-idx3", images), ("labels-idx1", labels)):
            path = raw / f"{stem}-{name}-ubyte"
            if zipped:
                path.with_suffix(".gz").write_bytes(gzip.compress(content, 1))
            else:
                path.write_bytes(content)
    return raw
