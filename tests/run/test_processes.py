"""Several processes stop together, resume together, and end equal to an uninterrupted run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from resume_matrix import free_port
from torch import distributed

from conftest import Outcome, Start, owned_processes

pytestmark = pytest.mark.skipif(not distributed.is_gloo_available(), reason="torch without gloo")

TRAIN = ["train", "--recipe", "article", "--dataset", "digits", "--epochs", "20"]
TRAIN += ["--validation-size", "0", "--stages", "8/8", "--hidden", "8", "--threads", "1"]
"""200 steps on the images of the fixture `digits`."""

TIMEOUT = 600
"""Seconds after which a process is taken to hang. No test depends on how fast one is."""

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]


def launch(
    start: Start, folder: Path, *arguments: str, torchrun: bool = False
) -> subprocess.Popen[str]:
    """Start the command line as two processes, under its own launcher or torchrun."""
    alone = [sys.executable, "-m", "vggnet", *arguments, "--nproc", "2"]
    command = [*TORCHRUN, "-m", "vggnet", *arguments] if torchrun else alone
    return start(*command, cwd=folder, env={"PYTHONFAULTHANDLER": "1"})


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


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory, digits: Path) -> Path:
    """The folder of a run under torchrun that nothing happened to."""
    folder = tmp_path_factory.mktemp("unbroken")
    (folder / "digits").symlink_to(digits)
    with owned_processes() as start:
        launcher = launch(start, folder, *TRAIN, torchrun=True)
        out, err = launcher.communicate(timeout=TIMEOUT)
    assert launcher.returncode == 0, err
    assert out.count("test accuracy") == 1
    return folder


def weights(run: Path) -> bytes:
    """Return the end of a run's model file, which is weights."""
    return (run / "model.safetensors").read_bytes()[-4000:]


def test_torchrun_trains_and_one_process_writes(unbroken: Path) -> None:
    """`torchrun -m vggnet train` prints one summary and leaves one run and one model file."""
    assert len(list((unbroken / "runs").iterdir())) == 1
    assert [path.name for path in unbroken.glob("*.pth")] == ["digits_vggnet.pth"]


def test_sigterm_saves_a_checkpoint_to_resume_from(
    start: Start, place: Path, unbroken: Path
) -> None:
    """Sent to one process alone, to our launcher and to torchrun: saved, and resumed exactly."""
    arguments = [*TRAIN, "--name", "cut"]
    for whom in ("one", "launcher", "torchrun"):
        launcher = launch(start, place, *arguments, torchrun=whom == "torchrun")
        assert launcher.stdout is not None
        assert launcher.stdout.readline().startswith("custom on digits")
        os.kill(workers(launcher)[1] if whom == "one" else launcher.pid, signal.SIGTERM)
        _, err = launcher.communicate(timeout=TIMEOUT)
        assert err.count("training was interrupted after step") == 1
        if whom != "torchrun":  # which logs more, and exits with 1
            assert launcher.returncode in (130, 143), err
            assert "Traceback" not in err
        arguments = ["train", "--resume", "runs/cut"]
    resumed = launch(start, place, *arguments)
    _, err = resumed.communicate(timeout=TIMEOUT)
    assert resumed.returncode == 0, err
    (whole,) = (unbroken / "runs").iterdir()
    assert weights(place / "runs/cut") == weights(whole)


def test_a_killed_process_is_restarted(start: Start, place: Path, unbroken: Path) -> None:
    """With --max-restarts the run resumes from its last checkpoint, to the same weights."""
    options = ("--name", "killed", "--max-restarts", "3", "--checkpoint-every", "10")
    launcher = launch(start, place, *TRAIN, *options)
    assert launcher.stdout is not None
    assert launcher.stdout.readline().startswith("custom on digits")
    os.kill(workers(launcher)[1], signal.SIGKILL)
    out, err = launcher.communicate(timeout=TIMEOUT)
    assert launcher.returncode == 0, err
    assert out.count("test accuracy") == 1
    (whole,) = (unbroken / "runs").iterdir()
    assert weights(place / "runs/killed") == weights(whole)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_killed_run_ends_the_same(processes: int) -> None:
    """With every recipe: after the first step, mid-epoch, at its end, before the last step."""
    script = Path(__file__).parents[2] / "benchmarks" / "stress" / "resume_matrix.py"
    command = [sys.executable, script, "--processes", str(processes)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("equal") == 12


def test_a_failure_is_reported_once(start: Start, place: Path) -> None:
    """An error of the main process, which ends the others too, is one line."""
    (place / "runs" / "taken").mkdir(parents=True)
    launcher = launch(start, place, *TRAIN, "--name", "taken")
    out, err = launcher.communicate(timeout=TIMEOUT)
    assert (launcher.returncode, out) == (2, "")
    errors = [one for one in err.splitlines() if not one.startswith("vggnet: warning: ")]
    assert len(errors) == 1, err
    assert errors[0].startswith("vggnet: ")


def test_processes_that_would_share_a_gpu_are_refused(start: Start, tmp_path: Path) -> None:
    """--device cuda:0 with two processes is an error before anything is written."""
    launcher = launch(start, tmp_path, "train", "--device", "cuda:0")
    _, err = launcher.communicate(timeout=TIMEOUT)
    assert launcher.returncode == 2
    assert "--device cuda:0 would be shared by 2 processes; use --device cuda" in err
    assert "Traceback" not in err
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


def test_processes_with_different_images_are_refused(start: Start, tmp_path: Path) -> None:
    """As on a machine with an old copy: no step is taken, and that process reports it."""
    places = {"LOCAL_WORLD_SIZE": "1", "LOCAL_RANK": "0", "WORLD_SIZE": "2"}
    places |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(free_port())}
    processes = []
    for rank in range(2):
        for number in range(20):
            path = tmp_path / str(rank) / "images" / "ab"[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (8, 8), 10 * number + rank).save(path)
        command = (sys.executable, "-m", "vggnet", "train", "--dataset", "images", "--threads", "1")
        environment = {**places, "RANK": str(rank)}
        processes.append(start(*command, cwd=tmp_path / str(rank), env=environment))
    said = [process.communicate(timeout=TIMEOUT)[1] for process in processes]
    assert [process.returncode for process in processes] == [1, 1]
    assert "process 1 has other images of images than process 0" in said[1]
    assert "Traceback" not in "".join(said)
    assert not list(tmp_path.rglob("*.pth"))
    assert not list(tmp_path.rglob("runs/*"))
