"""Checkpoints: the state to resume from, either whole or not counted.

A checkpoint is two files: `step-0000000123.safetensors` holds tensors and, in its header,
plain values; `step-0000000123.json`, its manifest, holds the size and SHA-256 of the first.
Each is written beside its place, flushed and renamed; the manifest comes last and makes
the checkpoint count. Whenever the process is killed, the checkpoint before is untouched.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as save_safetensors

from vggnet.artifacts.atomic import write_file
from vggnet.engine.snapshot import Snapshot
from vggnet.errors import CheckpointError, OutputError

KEPT = 2
"""Checkpoints that stay: should the newest turn out to be damaged, there is one before."""

_KEY = "vggnet"


class CheckpointFolder:
    """The checkpoints of one run, of which the last two that are known to be whole are kept.

    Args:
        path: The folder; made at the first checkpoint.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._whole: list[str] = []

    def save(self, snapshot: Snapshot) -> None:
        """Write a checkpoint, and only when it is safe remove those before the last two.

        Raises:
            OutputError: The disk does not take it; the ones before are untouched.
        """
        stem = f"step-{snapshot.values['step']:010d}"
        if self._whole[-1:] == [stem]:
            return
        state = self.path / f"{stem}.safetensors"
        values = json.dumps(snapshot.values, allow_nan=False)
        content = save_safetensors(snapshot.tensors, {_KEY: values})
        try:
            self.path.mkdir(exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot make {self.path}: {error.strerror}") from None
        write_file(state, content)
        manifest = _render_manifest(state, len(content), hashlib.sha256(content).hexdigest())
        write_file(state.with_suffix(".json"), manifest)
        self._whole = [*(one for one in self._whole if one != stem), stem][-KEPT:]
        self._prune()

    def load_latest(self) -> tuple[Snapshot, list[str]]:
        """Return the newest whole checkpoint, and what is wrong with any newer one.

        Raises:
            CheckpointError: There is none.
        """
        damage: list[str] = []
        for manifest in sorted(self.path.glob("step-*.json"), reverse=True):
            try:
                snapshot = _read(manifest)
            except CheckpointError as error:
                damage.append(str(error))
                continue
            self._whole = [manifest.stem]
            return snapshot, damage
        raise CheckpointError("; ".join([f"there is no whole checkpoint in {self.path}", *damage]))

    def _prune(self) -> None:
        """Remove all but the last two: older ones, damaged ones, and what a kill left behind.

        The manifest goes first, so that a checkpoint never counts without its tensors.
        """
        ours = [path for path in self.path.iterdir() if path.name.lstrip(".").startswith("step-")]
        doomed = [path for path in ours if path.stem not in self._whole]
        try:
            for path in sorted(doomed, key=lambda path: path.suffix != ".json"):
                path.unlink()
        except OSError as error:
            raise OutputError(f"cannot remove {path}: {error.strerror}") from None


def _render_manifest(state: Path, size: int, sha256: str) -> bytes:
    text = json.dumps({"format": 1, "file": state.name, "bytes": size, "sha256": sha256}, indent=2)
    return (text + "\n").encode()


def _read(manifest: Path) -> Snapshot:
    """Read a checkpoint whose every byte is as it was written.

    The manifest is a function of the other file, so it is rendered again and compared:
    there is no byte in either that could change unnoticed.
    """
    state = manifest.with_suffix(".safetensors")
    try:
        with state.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            expected = _render_manifest(state, file.tell(), sha256)
        if manifest.read_bytes() != expected:
            raise CheckpointError(f"{state} is damaged: it is not what {manifest.name} says")
        with safe_open(state, framework="pt") as opened:
            values = json.loads(opened.metadata()[_KEY])
            # Cloned: what safe_open gives is the file's own memory, which may not stay.
            tensors = {name: opened.get_tensor(name).clone() for name in opened.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise CheckpointError(f"{state} is missing") from None
    except OSError as error:
        raise CheckpointError(f"{state} cannot be read: {error.strerror}") from None
    except (SafetensorError, KeyError, TypeError, ValueError):
        raise CheckpointError(f"{state} is no checkpoint of this version of vggnet") from None
    return Snapshot(tensors, values)
