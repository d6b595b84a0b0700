"""The command line: output, errors, signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from conftest import Outcome, Start
from vggnet.artifacts.model_card import ModelCard
from vggnet.artifacts.model_file import load_model, save_model
from vggnet.config import SECTIONS, ModelConfig
from vggnet.errors import quote
from vggnet.model.vgg import build_network

Command = Callable[..., Outcome]

VGGNET = (sys.executable, "-m", "vggnet")

TINY = ("--stages", "8/8", "--hidden", "8", "--threads", "1")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, digits: Path) -> None:
    """Have a small dataset in the current folder."""
    (tmp_path / "digits").symlink_to(digits)


def test_train_then_evaluate(vggnet: Command, tmp_path: Path) -> None:
    """The last lines show accuracy, time, files and the next command, which works."""
    done = vggnet("train", "--epochs", "0.02", *TINY)
    assert done.code == 0
    assert done.err == ""
    lines = done.out.strip().splitlines()
    assert lines[0].startswith("custom on mnist: recipe fast, 0.02 epochs of 60,000 images")
    assert lines[1].startswith("epoch 0.0192 · loss ")
    assert lines[-4].startswith("test accuracy ")
    assert lines[-4].endswith(" s")
    assert lines[-3] == "model  mnist_vggnet.pth"
    assert lines[-2].startswith("run    runs/fast-mnist-")
    assert lines[-1] == "next   vggnet evaluate mnist_vggnet.pth"
    assert "\x1b" not in done.out
    found = vggnet(*lines[-1].split()[2:])
    assert found.code == 0
    share = lines[-4].split()[2]
    assert found.out.startswith(f"accuracy {share} %")


def test_json(vggnet: Command) -> None:
    """`train --json` and `evaluate --json` print one object each, with the same results."""
    flags = ("--dataset", "digits", "--validation-size", "500")
    trained = json.loads(vggnet("train", "--epochs", "1", "--json", *flags, *TINY).out)
    assert 0 <= trained["epochs"][0]["validation"]["accuracy"] <= 1
    found = json.loads(vggnet("evaluate", trained["model"], "--json", "--threads", "1").out)
    assert found.keys() >= {"accuracy", "count", "loss", "per_class", "confusion_matrix"}
    low, high = found["calibration_error_interval_95"]
    assert 0 <= low <= high
    assert found["uncalibrated"].keys() >= {"loss", "brier", "calibration_error"}
    assert found["accuracy"] == trained["test"]["accuracy"]
    assert 0 <= found["accuracy"] <= 1
    assert found["count"] == 20
    assert sum(map(sum, found["confusion_matrix"])) == 20
    assert [row["class"] for row in found["per_class"]] == list("0123456789")


@pytest.mark.parametrize("flag", ["--tta", "--shifts"])
def test_tta_is_reported_besides(vggnet: Command, digit_model: Path, flag: str) -> None:
    """`evaluate --tta 1`, or its old name, adds a result and leaves the others as they are."""
    command = ("evaluate", digit_model, "--dataset", "digits", "--json", "--threads", "1")
    plain = json.loads(vggnet(*command).out)
    both = json.loads(vggnet(*command, flag, 1).out)
    shifted = both.pop("shifted")
    assert both == plain
    assert shifted["pixels"] == 1
    assert 0.9 < shifted["accuracy"] <= 1
    assert shifted["loss"] != plain["loss"]
    assert vggnet("evaluate", digit_model, flag, 0).code == 2


@pytest.mark.usefixtures("drawing")
def test_evaluate_takes_the_articles_file(vggnet: Command, tmp_path: Path) -> None:
    """A bare state_dict is evaluated, and its plots are written."""
    network = build_network(ModelConfig(), 0)
    torch.save(dict(network.state_dict()), "plain.pth")
    plots = ("--mistakes", "m.png", "--confusion", "c.png")
    done = vggnet("evaluate", "plain.pth", "--dataset", "digits", *plots)
    assert done.code == 0
    for name in ("m.png", "c.png"):
        with Image.open(name) as image:
            assert min(image.size) > 400


def test_env(vggnet: Command) -> None:
    """`env` shows versions and why a device is unavailable; `--json` is one object."""
    assert f"torch         {torch.__version__}" in vggnet("env").out
    found = json.loads(vggnet("env", "--json").out)
    assert found["usable_cores"] >= 1
    assert found["convolutions"].startswith(("winograd: compiled for", "torch: "))
    assert found["devices"]["cpu"] == "available"
    if not torch.cuda.is_available():
        assert found["devices"]["cuda"].startswith("not available: ")


@pytest.mark.usefixtures("drawing")
def test_data(vggnet: Command) -> None:
    """`data` lists, verifies and shows datasets."""
    assert "mnist            10 classes · part of this package" in vggnet("data", "list").out
    assert json.loads(vggnet("data", "list", "--json").out)[0]["name"] == "mnist"
    assert "60,000 images, as published" in vggnet("data", "verify").out
    assert vggnet("data", "show", "-o", "sheet.png").out == "sheet.png\n"
    with Image.open("sheet.png") as image:
        assert min(image.size) > 1000


def test_every_setting_has_a_flag_or_comes_from_the_data(vggnet: Command) -> None:
    """The help of `train` has a flag for each field, except those that the dataset decides."""
    text = vggnet("train", "--help").out
    spelt = {
        "global_batch_size": "--batch-size",
        "architecture": "--model",
        "optimizer": "--opt",
        "peak_lr": "--lr",
        "schedule": "--sched",
        "label_smoothing": "--smoothing",
    }
    without = {"in_channels", "num_classes", "image_size", "mean", "std"}
    for section in SECTIONS.values():
        for name in set(section.model_fields) - without:
            assert spelt.get(name, "--" + name.replace("_", "-")) in text


def test_flags_reach_the_configuration(vggnet: Command) -> None:
    """Flags of each type override the file, which overrides the recipe."""
    Path("mine.toml").write_text('recipe = "article"\n[train]\nseed = 4\nepochs = 7\n')
    flags = ("--config", "mine.toml", "--epochs", "0.01", "--betas", "0.8", "0.9")
    flags += ("--batch-norm", "-b", "64", "--sched", "linear", *TINY, "--name", "first")
    done = vggnet("train", *flags, "--data-dir", "nowhere")
    assert done.code == 1
    assert "no mnist in nowhere" in done.err
    done = vggnet("train", *flags, "--dataset", "digits")
    assert done.code == 0, done.err
    config = json.loads(Path("runs/first/config.json").read_text())
    assert config["recipe"] == "article"
    assert config["model"]["batch_norm"] is True
    assert config["model"]["stages"] == [[8], [8]]
    train = config["train"]
    assert (train["seed"], train["epochs"], train["betas"]) == (4, 0.01, [0.8, 0.9])
    assert (train["global_batch_size"], train["schedule"]) == (64, "linear")
    again = vggnet("train", "--config", "runs/first/config.json", "--name", "second")
    assert again.code == 0
    assert json.loads(Path("runs/second/config.json").read_text()) == config


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ("train --batch-size 0", 2, "train.global_batch_size"),
        ("train --epochs -1", 2, "train.epochs"),
        ("train --epochs nan", 2, "train.epochs"),
        ("train --epochs many", 2, "--epochs"),
        ("train --recipe fats", 2, "did you mean 'fast'"),
        ("train --dataset mnits", 2, "did you mean 'mnist'"),
        ("train --model vgg-q", 2, "unknown model 'vgg-q'"),
        ("train --device gpu", 2, "unknown device 'gpu'"),
        ("train --precision fp8", 2, "fp8"),
        ("train --precision tf32 --device cpu", 2, "use fp32 or bf16"),
        ("train --sched cosine", 2, "cosine"),
        ("train --validation-size 60000", 2, "leaves nothing to train on"),
        ("train --kernels fast", 2, "fast"),
        ("train --config missing.toml", 2, "missing.toml"),
        ("train --epoch 3", 2, "--epochs"),
        ("train -o folder", 2, "must end with"),
        ("train --stages " + "8/" * 400 + "8", 2, "401 stages"),
        ("train --checkpoint-every " + "9" * 5000, 2, "--checkpoint-every"),
        ("train --stages 99999999999", 2, "unknown layer"),
        ("train --device cuda:99999999999999999999", 2, "unknown device"),
        ("train -o nowhere/m.pth", 1, "cannot write nowhere/m.pth"),
        ("train --name a/b", 2, "not a folder name"),
        ("train --data-dir nowhere", 1, "no mnist in nowhere"),
        ("evaluate", 2, "MODEL"),
        ("evaluate missing.pth", 1, "missing.pth: does not exist"),
        ("evaluate .", 1, "is a folder without"),
        ("data verify mnits", 2, "did you mean 'mnist'"),
        ("data show --split all", 2, "all"),
        ("trian", 2, "trian"),
    ],
)
def test_mistakes_get_one_line(vggnet: Command, arguments: str, code: int, words: str) -> None:
    """Wrong usage exits with 2 and a failure with 1, without a traceback or a run folder."""
    done = vggnet(*arguments.split())
    assert done.code == code, done.err
    assert words in done.err.replace("\n", " ")
    assert "Traceback" not in done.err
    assert not Path("runs").exists()
    assert not Path("mnist_vggnet.pth").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_a_missing_gpu_is_an_error(vggnet: Command) -> None:
    """`--device cuda` without a GPU does not fall back to the CPU."""
    done = vggnet("train", "--device", "cuda")
    assert done.code == 2
    assert "--device cuda: torch" in done.err


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_interrupted_training_keeps_its_weights(fork: Start, tmp_path: Path, name: str) -> None:
    """A signal ends a run after a step, with the weights so far in its folder."""
    (tmp_path / "digits_vggnet.pth").write_bytes(b"earlier")
    train = ["train", "--dataset", "digits", "--epochs", "50000", *TINY, "--name", "cut"]
    process = fork("-m", "vggnet", *train, "--force", cwd=tmp_path)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("epoch 1 "):
            break
    process.send_signal(getattr(signal, name))
    _, err = process.communicate()
    assert process.returncode == 130
    assert "interrupted after step" in err
    assert "weights so far are in runs/cut/model.safetensors" in err
    assert "Traceback" not in err
    load_model(tmp_path / "runs" / "cut" / "model.safetensors")
    assert (tmp_path / "digits_vggnet.pth").read_bytes() == b"earlier"


def test_a_closed_pipe_is_no_error_message(tmp_path: Path) -> None:
    """`vggnet … | head -1` prints no error."""
    done = subprocess.run(
        f"{sys.executable} -m vggnet data verify mnits 2>&1 | true; "
        f"{sys.executable} -m vggnet data list | head -n 1",
        shell=True,
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    assert done.stdout.startswith("mnist ")
    assert done.stderr == ""


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_left_ends_a_command_silently(unbuffered: str) -> None:
    """With and without buffering, there is no message, and the exit code is 1."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [*VGGNET, "data", "list"],
        stdout=writing,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("arguments", [["data", "list"], ["--version"]])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_behind_standard_output(arguments: list[str], unbuffered: str) -> None:
    """With and without buffering, it is one line and exit code 1."""
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*VGGNET, *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("vggnet: cannot write to standard output: No space left")


def test_both_outputs_may_fail() -> None:
    """If standard error goes to the same broken pipe, the exit code is still 1."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [*VGGNET, "data", "verify", "mnits"],
        stdout=writing,
        stderr=writing,
        env={**os.environ, "PYTHONUNBUFFERED": ""},
    )
    os.close(writing)
    assert done.returncode == 1


def test_output_in_ascii() -> None:
    """Characters that ASCII lacks are escaped."""
    done = subprocess.run(
        [*VGGNET, "data", "list"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0].startswith("mnist ")
    assert "10 classes \\xb7 " in done.stdout


def test_a_training_outlives_its_reader(fork: Start, tmp_path: Path) -> None:
    """`vggnet train | head -1` trains to the end silently and writes its files."""
    train = ["train", "--dataset", "digits", "--epochs", "15", *TINY, "--name", "piped"]
    process = fork("-m", "vggnet", *train, cwd=tmp_path, env={"PYTHONUNBUFFERED": ""})
    assert process.stdout is not None
    assert process.stdout.readline().startswith("custom on digits")
    process.stdout.close()
    _, err = process.communicate()
    assert process.returncode == 0
    assert all(line.startswith("vggnet: warning: ") for line in err.splitlines())
    assert (tmp_path / "runs" / "piped" / "test.json").exists()
    load_model(tmp_path / "digits_vggnet.pth")


def run_closed(folder: Path, closed: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command with closed standard streams, in the shell's notation."""
    command = " ".join((*VGGNET, *arguments, closed))
    return subprocess.run(command, shell=True, capture_output=True, text=True, cwd=folder)


def test_training_with_closed_standard_streams(tmp_path: Path) -> None:
    """It does not fail, or write what it prints into one of its files."""
    train = ("train", "--dataset", "digits", "--epochs", "1", *TINY, "--json")
    done = run_closed(tmp_path, "<&- >&- 2>&-", *train)
    assert done.returncode == 0
    load_model(tmp_path / "digits_vggnet.pth")
    for table in tmp_path.rglob("*.json"):
        json.loads(table.read_text())


@pytest.mark.parametrize(("image", "closed", "code"), [("-", "<&-", 1), ("8.png", ">&-", 0)])
def test_predicting_with_a_closed_standard_stream(
    tmp_path: Path, image: str, closed: str, code: int
) -> None:
    """No input is an image that cannot be read, and no output is no error."""
    card = ModelCard(classes=tuple("0123456789"), image_shape=(1, 28, 28))
    network = build_network(ModelConfig(stages=((8,), (8,)), hidden=(8,)), 0)
    save_model(tmp_path / "m.pth", network, card)
    Image.new("L", (28, 28), 255).save(tmp_path / "8.png")
    done = run_closed(tmp_path, closed, "predict", "m.pth", image, "--no-prepare")
    assert done.returncode == code
    assert done.stderr.count("\n") == code


IN_TERMINAL = """
import fcntl, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
from vggnet.cli import main
main()
"""
"""The program in the terminal that is its standard input."""


def test_a_closed_terminal_loses_no_run(fork: Start, tmp_path: Path) -> None:
    """When the terminal disappears, as with a lost SSH connection, the run saves and stops."""
    pytest.importorskip("termios")
    controller, terminal = os.openpty()
    train = ("train", "--dataset", "digits", "--epochs", "50000", *TINY, "--name", "cut")
    streams = {"stdin": terminal, "stdout": terminal, "stderr": terminal}
    process = fork("-c", IN_TERMINAL, *train, cwd=tmp_path, **streams)
    os.close(terminal)
    while b"steps" not in os.read(controller, 1000):
        assert process.poll() is None
    os.close(controller)
    assert process.wait() == 130
    load_model(tmp_path / "runs" / "cut" / "model.safetensors")
    assert list((tmp_path / "runs" / "cut" / "checkpoints").glob("*.json"))


def test_a_torch_without_libuv_starts_no_processes(
    vggnet: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some builds for Windows cannot start several processes; the error says so and what works."""

    def refuse(*_: object, **options: object) -> None:
        raise RuntimeError("use_libuv was requested but PyTorch was built without libuv support")

    monkeypatch.setattr("vggnet.engine.launch.TCPStore", refuse)
    done = vggnet("train", "--nproc", "2", *TINY)
    assert done.code == 2
    assert "need libuv, which torch" in done.err
    assert "in one process" in done.err


def test_commands_are_quoted_for_the_users_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command to copy has the quotes of the system's own shell."""
    monkeypatch.setattr(sys, "platform", "linux")
    assert quote(["my runs/a"]) == "'my runs/a'"
    monkeypatch.setattr(sys, "platform", "win32")
    assert quote(["my runs/a"]) == '"my runs/a"'
