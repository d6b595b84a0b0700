"""No command overwrites its inputs, or any file that vggnet did not write."""

from __future__ import annotations

import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from conftest import Outcome
from vggnet.artifacts.model_card import ModelCard
from vggnet.artifacts.model_file import save_model
from vggnet.artifacts.outputs import MODEL, ONNX, PNG, PT2, WEIGHTS, Kind, check_output
from vggnet.artifacts.plots import render_sheet
from vggnet.config import ModelConfig
from vggnet.errors import ConfigError
from vggnet.model.vgg import build_network

Command = Callable[..., Outcome]
SMALL = ModelConfig(stages=((4,), (8,)), hidden=(4,))
CARD = ModelCard(classes=tuple("0123456789"), image_shape=(1, 28, 28))
KINDS = (MODEL, ONNX, PNG, PT2, WEIGHTS)
SUFFIXES = (".pth", ".PNG", ".png", ".onnx", ".pt2", ".csv", ".safetensors", "")


@pytest.fixture
def files(vggnet: Command) -> dict[str, bytes]:
    """Inputs and files of other programs in the current folder."""
    save_model(Path("m.pth"), build_network(SMALL, 0), CARD)
    save_model(Path("n.safetensors"), build_network(SMALL, 0), CARD)
    Image.new("L", (28, 28), 255).save("photo.png")
    Image.new("L", (28, 28), 255).save("other.png")
    shutil.copy("photo.png", "photo.onnx")
    torch.save(build_network(SMALL, 0).state_dict(), "plain.pth")  # as the article's script does
    Path("hub").mkdir()
    Path("hub/README.md").write_text("mine")
    for name in "ab":
        Path("images", name).mkdir(parents=True)
        for number in range(4):
            Image.new("L", (8, 8), number).save(f"images/{name}/{number}.png")
    Path("images/compare.md").write_text("mine")
    Image.new("L", (2, 2)).save("images/study.png")
    return read_files()


def read_files() -> dict[str, bytes]:
    """Return the content of every file below the current folder."""
    return {str(path): path.read_bytes() for path in Path().rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("predict m.pth photo.png --show photo.png", "is an input of this command"),
        ("predict m.pth other.png --show photo.png", "exists and does not look like"),
        ("predict m.pth photo.png --show m.pth", "is an input of this command"),
        ("predict m.pth photo.png --show n.safetensors", "must end with .png"),
        ("predict m.pth photo.png --show ./images/../photo.png", "is an input"),
        ("evaluate m.pth --mistakes m.pth", "is an input of this command"),
        ("evaluate m.pth --confusion photo.png", "exists and does not look like"),
        ("evaluate m.pth --mistakes x.png --confusion x.png", "is an input"),
        ("export n.safetensors --format safetensors -o n.safetensors", "is an input"),
        ("export m.pth --format onnx -o photo.onnx", "exists and does not look like"),
        ("export m.pth --format pt2 -o photo.png", "must end with .pt2"),
        ("export m.pth --format hub -o hub", "holds something else"),
        ("export m.pth --format hub -o .", "holds something else"),
        ("train --epochs 0.001 -o plain.pth", "plain.pth exists and does not look like"),
        ("compare --steps 1 --repeats 1 -o images", "compare.md exists and does not look like"),
        ("study depth --models vgg-mini -o images", "study.png exists and does not look like"),
        ("data show mnist -o photo.png", "exists and does not look like"),
        ("data show images -o images/a/0.png", "is in images, an input of this command"),
        ("data show mnist -o m.pth", "must end with .png"),
    ],
)
def test_nothing_is_destroyed(
    vggnet: Command, files: dict[str, bytes], arguments: str, words: str
) -> None:
    """Each command ends with wrong usage, and every file is as it was."""
    done = vggnet(*arguments.split())
    assert done.code == 2
    assert words in done.err
    assert read_files() == files


@contextmanager
def pipe(path: Path) -> Iterator[None]:
    """Make a named pipe; whoever opens it finds another end, and soon its end."""
    os.mkfifo(path)
    end = threading.Event()

    def serve() -> None:
        while not end.wait(0.01):
            os.close(os.open(path, os.O_WRONLY))

    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()
        os.close(reader)


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pipes among files")
@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ("predict {pipe}.pth photo.png", 1),
        ("predict m.pth {pipe}.png", 1),
        ("predict m.pth photo.png --show {pipe}.png", 1),
        ("predict plain.pth photo.png --classes {pipe}", 2),
        ("evaluate {pipe}.safetensors", 1),
        ("evaluate m.pth --dataset {pipe}.csv", 1),
        ("evaluate m.pth --confusion {pipe}", 1),
        ("export m.pth --format onnx -o {pipe}.onnx", 1),
        ("export m.pth --format pt2 -o {pipe}.pt2", 1),
        ("export m.pth --format safetensors -o {pipe}.safetensors", 1),
        ("export m.pth --format hub -o {pipe}", 2),
        ("train --config {pipe}.toml", 2),
        ("train --dataset {pipe}.npz", 1),
        ("train --dataset {pipe}.zip", 1),
        ("train --epochs 0.001 -o {pipe}.pth", 1),
        ("train --init {pipe}.pth", 1),
        ("train --resume {pipe}", 1),
        ("data show {pipe}", 1),
        ("data show mnist -o {pipe}.png", 1),
        ("compare {pipe}.json", 1),
        ("serve {pipe}.pth", 1),
    ],
)
def test_pipes_are_not_waited_for(
    vggnet: Command, files: dict[str, bytes], arguments: str, code: int
) -> None:
    """As any input and any output, a pipe is refused unopened, with a sentence."""
    words = arguments.format(pipe="pipe").split()
    path = next(Path(word) for word in words if word.startswith("pipe"))
    with pipe(path):
        done = vggnet(*words)
        assert path.is_fifo()
    assert done.code == code, done.err
    refusals = ("regular file", "a pipe or a device", "holds something else", "not the folder")
    assert any(words in done.err for words in refusals)
    assert "Traceback" not in done.err
    path.unlink()
    assert read_files() == files


def test_a_link_to_an_input_is_the_input(vggnet: Command, files: dict[str, bytes]) -> None:
    """Neither a symbolic nor a hard link hides that the output is the model."""
    Path("soft.png").symlink_to("m.pth")
    Path("hard.png").hardlink_to("m.pth")
    for name in ("soft.png", "hard.png"):
        done = vggnet("evaluate", "m.pth", "--mistakes", name)
        assert (done.code, "is an input" in done.err) == (2, True)
    assert Path("m.pth").read_bytes() == files["m.pth"]


def test_own_outputs_are_replaced_and_others_by_force(
    vggnet: Command, files: dict[str, bytes]
) -> None:
    """A second run replaces the first one's file; --force replaces any file but an input."""
    for _ in range(2):
        done = vggnet("predict", "m.pth", "photo.png", "--no-prepare", "--show", "seen.png")
        assert done.code == 0, done.err
    arguments = ("predict", "m.pth", "photo.png", "--no-prepare", "--force", "--show")
    assert vggnet(*arguments, "other.png").code == 0
    assert Path("other.png").read_bytes() != files["other.png"]
    assert vggnet(*arguments, "photo.png").code == 2
    assert Path("photo.png").read_bytes() == files["photo.png"]


@pytest.mark.parametrize(
    "arguments",
    [
        "predict m.pth photo.png --classes names.png --show names.png",
        "predict m.pth images --explain images/a/0.png",
        "evaluate m.pth --classes names.png --confusion names.png",
        "evaluate m.pth --dataset images --mistakes images/b/1.png",
        "data show images -o images/a/3.png",
        "data audit images -o images/notes.html",
        "look m.pth photo.png --dataset images -o images/notes.html",
        "look m.pth photo.png --classes notes.html -o notes.html",
        "export m.pth --format html --classes notes.html -o notes.html",
        "train --config settings.pth --epochs 0.001 -o settings.pth",
        "train --dataset images -o images/a/old.pth",
        "study depth --models vgg-mini --config out/study.md -o out",
        "compare --steps 1 --repeats 1 --config out/compare.md -o out",
    ],
)
def test_not_even_force_replaces_an_input(
    vggnet: Command, files: dict[str, bytes], arguments: str
) -> None:
    """With --force, too, each file that a command reads, or reads a folder of, is as it was."""
    for name in ("names.png", "notes.html", "images/notes.html"):
        Path(name).write_text("\n".join(CARD.classes))
    Path("out").mkdir()
    for name in ("settings.pth", "out/study.md", "out/compare.md"):
        Path(name).write_text("[train]\nglobal_batch_size = 8\n")
    shutil.copy("photo.png", "images/a/old.pth")
    before = read_files()
    done = vggnet(*arguments.split(), "--force")
    assert done.code == 2, done.out + done.err
    assert "input of this command" in done.err
    assert read_files() == before


def write(path: Path, kind: str) -> None:
    """Write a file of a kind, or of none."""
    network = build_network(SMALL, 0)
    match kind:
        case "own model":
            save_model(path, network, CARD)
        case "plain weights":
            torch.save(network.state_dict(), path)
        case "own PNG":
            render_sheet(path, np.zeros((1, 1, 8, 8), np.uint8), [""], "")
        case "photo":
            Image.new("L", (2, 2)).save(path, format="PNG")
        case "text":
            path.write_text("vggnet.json Software vggnet")
        case "empty":
            path.touch()


@given(
    kind=st.sampled_from(KINDS),
    name=st.sampled_from([f"x{suffix}" for suffix in SUFFIXES]),
    content=st.sampled_from(["own model", "plain weights", "own PNG", "photo", "text", "empty"]),
    is_input=st.booleans(),
    is_below=st.booleans(),
    force=st.booleans(),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_rule(
    tmp_path: Path,
    kind: Kind,
    name: str,
    content: str,
    is_input: bool,
    is_below: bool,
    force: bool,
) -> None:
    """An existing file may be written only if it is empty, or vggnet's of the same kind.

    `force` allows any other, but for inputs and files in folders that are inputs.
    """
    path = tmp_path / name
    path.unlink(missing_ok=True)
    write(path.with_suffix(path.suffix or ".pth"), content)
    path.with_suffix(path.suffix or ".pth").rename(path)
    fits = path.suffix.lower() in ("", *kind.suffixes)
    own = {"own model": (MODEL, WEIGHTS), "own PNG": (PNG,), "empty": KINDS}.get(content, ())
    allowed = kind in own or (force and not is_below)
    try:
        check_output(path, kind, [path] * is_input + [tmp_path] * is_below, force)
    except ConfigError:
        assert is_input or not fits or not allowed
    else:
        assert fits
        assert allowed
        assert not is_input
    path.unlink()
    if fits:
        check_output(path, kind, [tmp_path / "input"])
