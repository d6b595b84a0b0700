"""`vggnet study depth` end to end, on a few images."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from compare.samples import write_digits
from conftest import Outcome, Start
from vggnet.artifacts.model_file import load_model
from vggnet.data.dataset import Dataset

Command = Callable[..., Outcome]

FLAGS = ("study", "depth", "--dataset", "digits", "--width", "0.02", "--threads", "1", "-b", "32")


@pytest.fixture
def digits(mnist: Dataset, tmp_path: Path) -> Path:
    """A folder of IDX files with a few MNIST images."""
    return write_digits(tmp_path / "digits", mnist)


def test_a_study_is_done_once(vggnet: Command, digits: Path) -> None:
    """Every run writes a line and a model; finished runs are not repeated or mixed."""
    flags = (*FLAGS, "--models", "vgg-mini,A", "--seeds", "2", "--epochs", "1")
    done = vggnet(*flags)
    assert done.code == 0, done.err
    ledger = Path("study/study.jsonl")
    lines = [json.loads(line) for line in ledger.read_text().splitlines()]
    found = [(one["model"], one["seed"], one["depth"]) for one in lines]
    assert found == [("vgg-mini", 0, 6), ("vgg-a", 0, 11), ("vgg-mini", 1, 6), ("vgg-a", 1, 11)]
    for one in lines:
        card = load_model(Path(f"study/{one['model']}-seed{one['seed']}.pth")).card
        assert card.test is not None
        assert card.test["accuracy"] == one["accuracy"]
        assert one["images"] == 290  # a tenth of each class is held out for validation
    for name in ("study.md", "study.html"):
        assert Path("study", name).stat().st_size > 1000
    assert Path("study/study.png").exists()
    assert "on digits with 1 epoch" in done.out
    before = ledger.read_bytes()
    assert vggnet(*flags).code == 0
    assert ledger.read_bytes() == before
    other = vggnet(*flags[:-1], "2")
    assert other.code == 2
    assert "train.epochs was 1.0 and is now 2.0" in other.err
    fewer = vggnet(*flags, "--seeds", "1")
    assert fewer.code == 0
    assert ledger.read_bytes() == before
    assert "1 of" not in fewer.out
    for one in lines:  # as in files from before this setting existed
        del one["settings"]["train.average_decay"]
    ledger.write_text("".join(f"{json.dumps(one)}\n" for one in lines))
    old = vggnet(*flags)
    assert old.code == 0, old.err


def test_ctrl_c_keeps_what_is_done(
    vggnet: Command, fork: Start, digits: Path, tmp_path: Path
) -> None:
    """The study stops at a step, and the same command resumes it to its end."""
    command = (*FLAGS, "--models", "vgg-mini", "--seeds", "2", "--epochs", "15")
    process = fork("-m", "vggnet", *command, cwd=tmp_path)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("epoch 3 "):
            break
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130
    assert "interrupted with 0 of 2 runs done; the same command continues" in err
    checkpoints = tmp_path / "study" / "runs" / "vgg-mini-seed0" / "checkpoints"
    assert any(checkpoints.iterdir())
    done = vggnet(*command)
    assert done.code == 0, done.err
    assert "resumed after step" in done.out
    assert len((tmp_path / "study" / "study.jsonl").read_text().splitlines()) == 2


def test_a_study_survives_the_end_of_its_pipe(fork: Start, digits: Path, tmp_path: Path) -> None:
    """With `vggnet study depth | head`, all runs finish and the report is written."""
    command = ["-m", "vggnet", *FLAGS, "--models", "vgg-mini", "--seeds", "2", "--epochs", "1"]
    process = fork(*command, cwd=tmp_path, env={"PYTHONUNBUFFERED": ""})
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    with process.stderr:
        said = process.stderr.read()
    process.wait()
    assert "Traceback" not in said
    assert len((tmp_path / "study" / "study.jsonl").read_text().splitlines()) == 2
    assert (tmp_path / "study" / "study.md").is_file()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ("--models Q", 2, "unknown model 'Q'"),
        ("--models A --seed 3", 2, "a study sets train.seed itself; use --seeds"),
        ("--models A --model vgg-b", 2, "use --models"),
        ("--seeds 0", 2, "--seeds"),
        ("--width 0", 2, "model.width"),
        ("--dataset nowhere", 2, "unknown dataset 'nowhere'"),
    ],
)
def test_wrong_usage_is_explained(vggnet: Command, arguments: str, code: int, words: str) -> None:
    """Wrong usage ends with exit code 2 and a clear message."""
    done = vggnet("study", "depth", *arguments.split())
    assert done.code == code, done.err
    assert words in done.err
