"""Several processes stop together, resume together, and end equal to an uninterrupted run."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from torch import distributed

from conftest import Outcome, Start
from forked import ForkServer

from .conftest import TIMEOUT, TRAIN, train_two

pytestmark = pytest.mark.skipif(not distributed.is_gloo_available(), reason="torch without gloo")

TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "vggnet"]

OURS = """
import os, sys
from vggnet.cli import main
sys.executable = os.environ["PYTHON_EXEC"]
main()
"""
"""Starts workers with the Python that torchrun starts them with."""


Launch = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def launch(fork: Start, fork_server: ForkServer, place: Path) -> Launch:
    """Start the command line as two processes, under its own launcher or torchrun."""
    settings = {"PYTHONFAULTHANDLER": "1", "PYTHON_EXEC": str(fork_server.python)}

    def begin(*arguments: str, torchrun: bool = False) -> subprocess.Popen[str]:
        ours = ["-c", OURS, *arguments, "--nproc", "2"]
        return fork(*([*TORCHRUN, *arguments] if torchrun else ours), cwd=place, env=settings)

    return begin


def workers(launcher: subprocess.Popen[str]) -> list[int]:
    """Return the ids of the training processes."""
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    return [pid for pid in map(int, children) if "train" in _command(pid)]


def _command(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().decode()


@pytest.fixture
def place(tmp_path: Path, digits: Path) -> Path:
    """A folder with nothing but the dataset."""
    (tmp_path / "digits").symlink_to(digits)
    return tmp_path


def test_kills_and_signals_lose_nothing(launch: Launch, place: Path, unbroken: Path) -> None:
    """A killed process is restarted, SIGTERM saves, and the resumed run ends as if uninterrupted.

    The signal is sent to our launcher, to one process alone, and to torchrun. Each launch resumes
    the run from the last one's checkpoint. The one that ends it, under torchrun, prints one summary
    and leaves one run and one model file.
    """
    options = ("--name", "cut", "--max-restarts", "3", "--checkpoint-every", "10")
    arguments = [*TRAIN, *options]
    for whom in ("launcher", "one", "torchrun"):
        launcher = launch(*arguments, torchrun=whom == "torchrun")
        wait_for_training(launcher)
        if whom == "launcher":
            os.kill(workers(launcher)[1], signal.SIGKILL)
            wait_for_training(launcher)
        os.kill(workers(launcher)[1] if whom == "one" else launcher.pid, signal.SIGTERM)
        _, err = launcher.communicate(timeout=TIMEOUT)
        assert err.count("training was interrupted after step") == 1
        if whom != "torchrun":  # which logs more, and exits with 1
            assert launcher.returncode in (130, 143), err
            assert "Traceback" not in err
        arguments = ["train", "--resume", "runs/cut"]
    resumed = launch(*arguments, torchrun=True)
    out, err = resumed.communicate(timeout=TIMEOUT)
    assert resumed.returncode == 0, err
    assert out.count("test accuracy") == 1
    assert [path.name for path in (place / "runs").iterdir()] == ["cut"]
    assert [path.name for path in place.glob("*.pth")] == ["digits_vggnet.pth"]
    ended = place / "runs" / "cut" / "model.safetensors"
    assert ended.read_bytes()[-4000:] == unbroken.read_bytes()[-4000:]  # weights


def wait_for_training(launcher: subprocess.Popen[str]) -> None:
    """Read what it prints until it says what it trains."""
    assert launcher.stdout is not None
    while not launcher.stdout.readline().startswith("custom on digits"):
        assert launcher.poll() is None


@pytest.mark.parametrize("processes", [1, 2])
def test_a_killed_run_ends_the_same(fork: Start, processes: int) -> None:
    """With every recipe: after the first step, mid-epoch, at its end, before the last step."""
    script = Path(__file__).parents[2] / "benchmarks" / "stress" / "resume_matrix.py"
    matrix = fork(script, "--processes", processes)
    out, err = matrix.communicate(timeout=TIMEOUT)
    assert matrix.returncode == 0, out + err
    assert out.count("equal") == 12


def test_a_failure_is_reported_once(launch: Launch, place: Path) -> None:
    """An error of the main process, which ends the others too, is one line."""
    (place / "runs" / "taken").mkdir(parents=True)
    launcher = launch(*TRAIN, "--name", "taken")
    out, err = launcher.communicate(timeout=TIMEOUT)
    assert (launcher.returncode, out) == (2, "")
    errors = [one for one in err.splitlines() if not one.startswith("vggnet: warning: ")]
    assert len(errors) == 1, err
    assert errors[0].startswith("vggnet: ")


def test_processes_that_would_share_a_gpu_are_refused(fork: Start, tmp_path: Path) -> None:
    """--device cuda:0 with two processes is an error before anything is written."""
    found = train_two(fork, (tmp_path, tmp_path), "train", "--device", "cuda:0")
    assert 2 in [code for code, _ in found]
    errors = "".join(error for _, error in found)
    assert "--device cuda:0 would be shared by 2 processes; use --device cuda" in errors
    assert "Traceback" not in errors
    assert not (tmp_path / "runs").exists()


def test_a_missing_address_is_reported(
    vggnet: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the address of the other process, the error names the missing variable."""
    places = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    for name, value in places.items():
        monkeypatch.setenv(name, value)
    done = vggnet("train")
    assert done.code == 2
    assert done.err.startswith("vggnet: cannot find the other processes: ")
    assert "MASTER_ADDR" in done.err
    assert len(done.err.splitlines()) == 1


def test_processes_with_different_images_are_refused(fork: Start, tmp_path: Path) -> None:
    """As on a machine with an old copy: no step is taken, and that process reports it."""
    folders = (tmp_path / "0", tmp_path / "1")
    for rank, folder in enumerate(folders):
        for number in range(20):
            path = folder / "images" / "ab"[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (8, 8), 10 * number + rank).save(path)
    train = ("train", "--dataset", "images", "--threads", "1")
    (first, _), (second, said) = train_two(fork, folders, *train)
    assert (first, second) == (1, 1)
    assert "process 1 has other images of images than process 0" in said
    assert "Traceback" not in said
    assert not list(tmp_path.rglob("*.pth"))
    assert not list(tmp_path.rglob("runs/*"))
