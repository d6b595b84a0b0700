"""Checkpoints are complete or ignored; a kill, a full disk or a foreign file loses none."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from safetensors.torch import save_file

from conftest import Start
from vggnet.artifacts.checkpoint import CheckpointFolder
from vggnet.engine.snapshot import Snapshot
from vggnet.errors import CheckpointError, OutputError

SUFFIXES = (".json", ".safetensors")

STRESS = Path(__file__).parents[2] / "benchmarks" / "stress"


def snapshot(step: int) -> Snapshot:
    """Return a small snapshot."""
    return Snapshot({"sums": torch.full((100, 2), float(step))}, {"step": step, "seconds": 0.5})


@pytest.fixture
def pair(tmp_path: Path) -> tuple[CheckpointFolder, list[Path]]:
    """Two checkpoints, and the files of the newer one."""
    folder = CheckpointFolder(tmp_path / "checkpoints")
    folder.save(snapshot(1))
    folder.save(snapshot(2))
    return folder, sorted(folder.path.glob("step-*2.*"))


def assert_falls_back(folder: CheckpointFolder) -> None:
    """The older checkpoint is used, and the newer one is reported."""
    found, damage = CheckpointFolder(folder.path).load_latest()
    assert found.values["step"] == 1
    assert len(damage) == 1
    assert "step-0000000002.safetensors" in damage[0]


def test_every_cut_is_detected(pair: tuple[CheckpointFolder, list[Path]]) -> None:
    """Either file truncated to 256 lengths: the previous checkpoint is used."""
    folder, paths = pair
    for path in paths:
        content = path.read_bytes()
        for length in {len(content) * part // 256 for part in range(256)}:
            path.write_bytes(content[:length])
            assert_falls_back(folder)
        path.write_bytes(content)
    assert CheckpointFolder(folder.path).load_latest()[0].values["step"] == 2


def test_every_flipped_bit_is_detected(pair: tuple[CheckpointFolder, list[Path]]) -> None:
    """1,000 single bits over both files: the previous checkpoint is used."""
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


def test_no_checkpoint_is_an_error(tmp_path: Path) -> None:
    """The error names the folder."""
    with pytest.raises(CheckpointError, match="no complete checkpoint in"):
        CheckpointFolder(tmp_path).load_latest()


def test_a_full_disk_loses_no_checkpoint(pair: tuple[CheckpointFolder, list[Path]]) -> None:
    """If the kernel's limit on file sizes stops the writing, both checkpoints remain."""
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


def test_an_old_checkpoint_that_cannot_be_deleted_is_a_warning(
    pair: tuple[CheckpointFolder, list[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new one is safe, and the next one deletes what was left."""
    folder, _ = pair
    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", _refuse)
        patch.setattr(Path, "unlink", _refuse)
        warnings = folder.save(snapshot(3))
    assert len(warnings) == 2
    assert "cannot delete the old checkpoint" in warnings[0]
    assert "Permission denied" in warnings[0]
    assert CheckpointFolder(folder.path).load_latest()[0].values["step"] == 3
    assert folder.save(snapshot(4)) == []
    assert len(list(folder.path.iterdir())) == 4


def _refuse(*arguments: object, **options: object) -> None:
    raise PermissionError(13, "Permission denied")


FOREIGN = st.builds(
    "".join,
    st.tuples(
        st.sampled_from(["step-", "step-", "my step-", "step", ""]),
        st.sampled_from(["mybackup", "0000000001", "0000000009", "0000000001 copy", "9", "-1"]),
        st.sampled_from([".json", ".safetensors", ".safetensors", ".json.bak", ".tmp", ""]),
    ),
)
"""Names that differ from ours in one part or more; a few are ours."""


@given(st.sets(FOREIGN, max_size=4), st.booleans())
def test_foreign_files_are_left_alone(names: set[str], folders: bool) -> None:
    """Files and folders with similar names are neither deleted nor read."""
    assume(not names & {".", ".."})
    with tempfile.TemporaryDirectory() as temporary:
        folder = CheckpointFolder(Path(temporary))
        folder.save(snapshot(1))
        ours = {f"step-{step:010d}{suffix}" for step in (1, 9) for suffix in SUFFIXES}
        killed = {name for name in names if name.endswith(".tmp")}  # may be one of ours
        foreign = names - ours - killed
        for name in foreign:
            path = folder.path / name
            path.mkdir() if folders else path.write_bytes(b"mine")
        for step in (2, 3, 4):
            assert folder.save(snapshot(step)) == []
        left = {path.name for path in folder.path.iterdir()}
        assert left == foreign | {
            f"step-{step:010d}{suffix}" for step in (3, 4) for suffix in SUFFIXES
        }
        found, damage = CheckpointFolder(folder.path).load_latest()
        assert (found.values["step"], damage) == (4, [])


@pytest.mark.parametrize(
    "values", ["1", "[]", "null", "{", "[" * 100_000, '{"step": ' + "9" * 5000 + "}", "\x00"]
)
def test_values_that_are_not_a_table_are_not_a_checkpoint(tmp_path: Path, values: str) -> None:
    """Whatever the header holds, reading it ends with a snapshot or a CheckpointError."""
    CheckpointFolder(tmp_path).save(snapshot(1))
    state = tmp_path / "step-0000000001.safetensors"
    save_file({"sums": torch.zeros(1, 2)}, state, {"vggnet": values})
    _write_manifest(state)
    with contextlib.suppress(CheckpointError):
        CheckpointFolder(tmp_path).load_latest()


def test_a_manifest_without_end_is_not_read(pair: tuple[CheckpointFolder, list[Path]]) -> None:
    """One that grew to 60 GB, which the disk does not hold, does not match; it is not loaded."""
    folder, (manifest, _) = pair
    with manifest.open("r+b") as file:
        file.truncate(60 * 10**9)
    assert_falls_back(folder)


def _write_manifest(state: Path) -> None:
    """Write the manifest that belongs to a file."""
    content = state.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    manifest = {"format": 1, "file": state.name, "bytes": len(content), "sha256": sha256}
    state.with_suffix(".json").write_text(json.dumps(manifest, indent=2) + "\n")


def test_two_hundred_kills_lose_nothing(fork: Start) -> None:
    """SIGKILL at chosen points and random times: every checkpoint loads, the result is equal."""
    loop = fork(STRESS / "kill_loop.py", "--kills", "200")
    out, err = loop.communicate(timeout=600)
    assert loop.returncode == 0, out + err
    assert err == ""
