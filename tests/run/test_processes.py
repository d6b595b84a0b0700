"""Several processes stop together, resume together, and end equal to an uninterrupted run."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image
from torch import distributed

pytestmark = pytest.mark.skipif(not distributed.is_gloo_available(), reason="torch without gloo")

TRAIN = [
    "train",
    "--recipe",
    "article",
    "--epochs",
    "0.3",
    "--stages",
    "8/8",
    "--hidden",
    "8",
    "--threads",
    "1",
]


TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]


def start(folder: Path, *arguments: str, torchrun: bool = False) -> subprocess.Popen[str]:
    """Start two processes with our launcher or torchrun."""
    alone = [sys.executable, "-m", "vggnet", *arguments, "--nproc", "2"]
    return subprocess.Popen(
        [*TORCHRUN, "-m", "vggnet", *arguments] if torchrun else alone,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1"},
    )


def workers(launcher: subprocess.Popen[str]) -> list[int]:
    """Return the ids of the training processes."""
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    return [pid for pid in map(int, children) if "train" in _command(pid)]


def _command(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().decode()


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The end of the model file of an uninterrupted run of two processes."""
    folder = tmp_path_factory.mktemp("unbroken")
    launcher = start(folder, *TRAIN, "--name", "whole")
    out, err = launcher.communicate(timeout=120)
    assert launcher.returncode == 0, err
    assert out.count("test accuracy") == 1
    return (folder / "runs/whole/model.safetensors").read_bytes()[-4000:]


@pytest.mark.parametrize("whom", ["one", "launcher", "torchrun"])
def test_sigterm_saves_a_checkpoint(tmp_path: Path, whom: str, unbroken: bytes) -> None:
    """Sent to one process, our launcher or torchrun: all stop, and the resumed run is equal."""
    launcher = start(tmp_path, *TRAIN, "--name", "cut", torchrun=whom == "torchrun")
    assert launcher.stdout is not None
    assert launcher.stdout.readline().startswith("custom on mnist")
    os.kill(workers(launcher)[1] if whom == "one" else launcher.pid, signal.SIGTERM)
    began = time.monotonic()
    _, err = launcher.communicate(timeout=60)
    assert time.monotonic() - began < 30
    assert err.count("training was interrupted after step") == 1
    if whom != "torchrun":  # which logs more, and exits with 1
        assert launcher.returncode in (130, 143), err
        assert "Traceback" not in err
    resumed = start(tmp_path, "train", "--resume", "runs/cut")
    _, err = resumed.communicate(timeout=120)
    assert resumed.returncode == 0, err
    assert (tmp_path / "runs/cut/model.safetensors").read_bytes()[-4000:] == unbroken


def test_a_killed_process_is_restarted(tmp_path: Path, unbroken: bytes) -> None:
    """With --max-restarts the run resumes from its last checkpoint, to the same weights."""
    options = ("--name", "killed", "--max-restarts", "3", "--checkpoint-every", "10")
    launcher = start(tmp_path, *TRAIN, *options)
    assert launcher.stdout is not None
    assert launcher.stdout.readline().startswith("custom on mnist")
    os.kill(workers(launcher)[1], signal.SIGKILL)
    out, err = launcher.communicate(timeout=120)
    assert launcher.returncode == 0, err
    assert out.count("test accuracy") == 1
    assert (tmp_path / "runs/killed/model.safetensors").read_bytes()[-4000:] == unbroken


@pytest.mark.parametrize("processes", [1, 2])
def test_a_killed_run_ends_the_same(processes: int) -> None:
    """With every recipe: after the first step, mid-epoch, at its end, before the last step."""
    script = Path(__file__).parents[2] / "benchmarks" / "stress" / "resume_matrix.py"
    command = [sys.executable, script, "--processes", str(processes)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("equal") == 12


def test_a_failure_is_reported_once(tmp_path: Path) -> None:
    """An error of the main process, which ends the others too, is one line."""
    (tmp_path / "runs" / "taken").mkdir(parents=True)
    launcher = start(tmp_path, *TRAIN, "--name", "taken")
    out, err = launcher.communicate(timeout=60)
    assert (launcher.returncode, out) == (2, "")
    assert err.count("vggnet: ") == 1
    assert len(err.splitlines()) == 1, err


def test_processes_that_would_share_a_gpu_are_refused(tmp_path: Path) -> None:
    """--device cuda:0 with two processes is an error before anything is written."""
    process = start(tmp_path, *TRAIN, "--device", "cuda:0")
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "--device cuda:0 would be shared by 2 processes; use --device cuda" in err
    assert "Traceback" not in err
    assert not (tmp_path / "runs").exists()


def test_a_missing_address_is_reported(tmp_path: Path) -> None:
    """Without the address of the other process, the error names the missing variable."""
    places = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    done = subprocess.run(
        [sys.executable, "-m", "vggnet", *TRAIN],
        cwd=tmp_path,
        env={**os.environ, **places},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("vggnet: cannot find the other processes: ")
    assert "MASTER_ADDR" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_processes_with_different_images_are_refused(tmp_path: Path) -> None:
    """As on a machine with an old copy: no step is taken, and that process reports it."""
    places = {"LOCAL_WORLD_SIZE": "1", "LOCAL_RANK": "0", "WORLD_SIZE": "2"}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        places |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    processes = []
    for rank in range(2):
        for number in range(20):
            path = tmp_path / str(rank) / "images" / "ab"[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (8, 8), 10 * number + rank).save(path)
        processes.append(
            subprocess.Popen(
                [sys.executable, "-m", "vggnet", *TRAIN, "--dataset", "images"],
                cwd=tmp_path / str(rank),
                env={**os.environ, **places, "RANK": str(rank)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    said = [process.communicate(timeout=100)[1] for process in processes]
    assert [process.returncode for process in processes] == [1, 1]
    assert "process 1 has other images of images than process 0" in said[1]
    assert "Traceback" not in "".join(said)
    assert not list(tmp_path.rglob("*.pth"))
    assert not list(tmp_path.rglob("runs/*"))
