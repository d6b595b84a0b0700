"""Checkpoints are whole, or known not to be; a kill or a full disk costs none."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from vggnet.artifacts.checkpoint import CheckpointFolder
from vggnet.engine.snapshot import Snapshot
from vggnet.errors import CheckpointError, OutputError

STRESS = Path(__file__).parents[2] / "benchmarks" / "stress"


def snapshot(step: int) -> Snapshot:
    """Return a small one."""
    return Snapshot({"sums": torch.full((100, 2), float(step))}, {"step": step, "seconds": 0.5})


@pytest.fixture
def pair(tmp_path: Path) -> tuple[CheckpointFolder, list[Path]]:
    """Two checkpoints, and the files of the newer one."""
    folder = CheckpointFolder(tmp_path / "checkpoints")
    folder.save(snapshot(1))
    folder.save(snapshot(2))
    return folder, sorted(folder.path.glob("step-*2.*"))


def assert_falls_back(folder: CheckpointFolder) -> None:
    """The older one is used, and the newer one named."""
    found, damage = CheckpointFolder(folder.path).load_latest()
    assert found.values["step"] == 1
    assert len(damage) == 1
    assert "step-0000000002.safetensors" in damage[0]


def test_every_cut_is_detected(pair: tuple[CheckpointFolder, list[Path]]) -> None:
    """Either file cut at 256 lengths: the checkpoint before is used, and this one named."""
    folder, paths = pair
    for path in paths:
        content = path.read_bytes()
        for length in {len(content) * part // 256 for part in range(256)}:
            path.write_bytes(content[:length])
            assert_falls_back(folder)
        path.write_bytes(content)
    assert CheckpointFolder(folder.path).load_latest()[0].values["step"] == 2


def test_every_flipped_bit_is_detected(pair: tuple[CheckpointFolder, list[Path]]) -> None:
    """Likewise 1,000 single bits, over both files."""
    folder, paths = pair
    dice = random.Random(0)
    for _ in range(1000):
        path = dice.choice(paths)
        content = bytearray(path.read_bytes())
        place, bit = dice.randrange(len(content)), 1 << dice.randrange(8)
        content[place] ^= bit
        path.write_bytes(content)
        assert_falls_back(folder)
        content[place] ^= bit
        path.write_bytes(content)
    assert CheckpointFolder(folder.path).load_latest()[0].values["step"] == 2


def test_without_any_there_is_an_error(tmp_path: Path) -> None:
    """It says where none was found."""
    with pytest.raises(CheckpointError, match="no whole checkpoint in"):
        CheckpointFolder(tmp_path).load_latest()


def test_a_full_disk_costs_no_checkpoint(pair: tuple[CheckpointFolder, list[Path]]) -> None:
    """The kernel's limit on the size of a file stops the writing; both are still there."""
    resource = pytest.importorskip("resource")
    folder, _ = pair
    before = {path: path.read_bytes() for path in folder.path.iterdir()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (512, limits[1]))
    try:
        with pytest.raises(OutputError, match="cannot write"):
            folder.save(snapshot(3))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {path: path.read_bytes() for path in folder.path.iterdir()} == before
    folder.save(snapshot(4))
    assert CheckpointFolder(folder.path).load_latest()[0].values["step"] == 4


def test_two_hundred_kills_lose_nothing() -> None:
    """SIGKILL at chosen points and random times: each loads, and the end is the same."""
    command = [sys.executable, STRESS / "kill_loop.py", "--kills", "200"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
