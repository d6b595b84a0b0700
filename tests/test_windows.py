"""Commands work under Windows' file rules, emulated on Linux in a process of their own."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from conftest import Start

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the emulation reads /proc/self")

RULES = '''
"""Windows refuses to replace or delete a file that is open or mapped, and to flush a read-only
handle. It has no fork, and its console may only know cp1252."""

import builtins, fcntl, os, pathlib, sys


def refuse_if_open(path):
    path = os.path.realpath(path)
    handles = [os.path.realpath(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")]
    mapped = [line.split(maxsplit=5)[-1].strip() for line in builtins.open("/proc/self/maps")]
    if path in handles + mapped:
        error = PermissionError(13, "The process cannot access the file", path)
        error.winerror = 32
        raise error


def guard(name, checked):
    original = getattr(os, name)

    def call(*paths, **options):
        for path in paths[:checked]:
            if options.get("dir_fd") is None:
                refuse_if_open(path)
        return original(*paths, **options)

    setattr(os, name, call)


def fsync(descriptor, original=os.fsync):
    writable = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY
    if not writable and os.path.isfile(f"/proc/self/fd/{descriptor}"):
        raise OSError(9, "Bad file descriptor")
    original(descriptor)


for name, checked in (("replace", 2), ("rename", 2), ("unlink", 1), ("remove", 1)):
    guard(name, checked)
os.fsync = fsync
del os.fork
for stream in (sys.stdout, sys.stderr):
    stream.reconfigure(encoding="cp1252", errors="strict")
'''

COMMANDS = """
from vggnet.cli import main


def vggnet(*arguments, code=0):
    sys.argv = ["vggnet", *arguments]
    try:
        main()
        found = 0
    except SystemExit as stop:
        found = stop.code or 0
    assert found == code, (arguments, found)


tiny = ("--stages", "8/8", "--hidden", "8", "--threads", "1", "--kernels", "torch")
train = ("train", "--dataset", "digits", "--sched", "constant", "--checkpoint-every", "1", *tiny)
vggnet(*train, "--epochs", "0.5", "--name", "first")
vggnet(*train, "--epochs", "0.5", "--name", "second")  # over the first one's model file
vggnet("train", "--resume", "runs/first", "--epochs", "1")
vggnet("evaluate", "digits_vggnet.pth", "--mistakes", "m.png", "--confusion", "c.png")
vggnet("evaluate", "digits_vggnet.pth", "--mistakes", "m.png", "--confusion", "c.png")
vggnet("predict", "digits_vggnet.pth", "m.png", "--no-prepare", code=1)
vggnet("export", "digits_vggnet.pth", "--format", "safetensors")
vggnet("export", "digits_vggnet.pth", "--format", "hub")
vggnet("export", "digits_vggnet.pth", "--format", "hub")
vggnet("data", "show", "digits")
vggnet("data", "list")
"""

BREAK_THEM = """
import numpy as np

path = pathlib.Path("file")
path.write_bytes(bytes(5000))
for hold in (lambda: path.open("rb"), lambda: np.memmap(path, mode="r")):
    held = hold()
    for attack in (path.unlink, lambda: pathlib.Path("other").replace(path)):
        pathlib.Path("other").touch()
        try:
            attack()
        except PermissionError as error:
            assert error.winerror == 32
        else:
            raise AssertionError("an open file was replaced or deleted")
    del held
path.unlink()
with builtins.open("other", "rb") as file:
    try:
        os.fsync(file.fileno())
    except OSError:
        print("refused")
"""


def test_the_rules_are_enforced(fork: Start, tmp_path: Path) -> None:
    """The emulation refuses to replace or delete open and mapped files, and to flush readers."""
    process = fork("-c", RULES + BREAK_THEM, cwd=tmp_path)
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert out == "refused\n"


def test_commands_work(fork: Start, tmp_path: Path, digits: Path) -> None:
    """Training, resuming, evaluating, predicting and exporting replace only closed files."""
    (tmp_path / "digits").symlink_to(digits)
    process = fork("-c", RULES + COMMANDS, cwd=tmp_path)
    _, err = process.communicate()
    assert process.returncode == 0, err
    assert "Traceback" not in err
    assert not list(tmp_path.rglob("*.tmp"))
