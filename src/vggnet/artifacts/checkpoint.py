"""Checkpoints: the state to resume from, either complete or ignored.

A checkpoint is two files: `step-0000000123.safetensors` with the tensors and, in its header,
plain values; and `step-0000000123.json`, its manifest, with the size and SHA-256 of the first.
Each file is written beside its place, flushed and renamed; the manifest comes last and makes
the checkpoint count. If the process is killed at any time, the previous checkpoint is intact.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as save_safetensors

from vggnet.artifacts.atomic import write_file
from vggnet.data.files import open_regular
from vggnet.engine.snapshot import Snapshot
from vggnet.errors import CheckpointError, OutputError

KEPT = 2
"""Checkpoints to keep: if the newest is damaged, there is a second one."""

_KEY = "vggnet"

_OURS = re.compile(r"\.?(step-(?:[0-9]{10}|[1-9][0-9]{10,}))\.(?:json|safetensors)(?:\..+\.tmp)?")
"""Our files, and what `write_file` leaves when it is killed. All other files are left alone."""


class CheckpointFolder:
    """The checkpoints of one run; the last two that are complete are kept.

    Args:
        path: The folder, which the first checkpoint makes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._complete: list[str] = []

    def save(self, snapshot: Snapshot) -> list[str]:
        """Write a checkpoint, and then delete all but the last two.

        Returns:
            Warnings about old files that could not be deleted.

        Raises:
            OutputError: It cannot be written; the earlier ones are intact.
        """
        stem = f"step-{snapshot.values['step']:010d}"
        if self._complete[-1:] == [stem]:
            return []
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
        self._complete = [*(one for one in self._complete if one != stem), stem][-KEPT:]
        return self._prune()

    def load_latest(self) -> tuple[Snapshot, list[str]]:
        """Return the newest complete checkpoint, and what is wrong with any newer one.

        Raises:
            CheckpointError: There is none.
            OSError: The folder cannot be read.
        """
        damage: list[str] = []
        manifests = [path for path, _ in self._files() if path.suffix == ".json"]
        for manifest in sorted(manifests, reverse=True):
            try:
                snapshot = _read(manifest)
            except CheckpointError as error:
                damage.append(str(error))
                continue
            self._complete = [manifest.stem]
            return snapshot, damage
        raise CheckpointError(
            "; ".join([f"there is no complete checkpoint in {self.path}", *damage])
        )

    def _files(self) -> list[tuple[Path, str]]:
        """Return our files, each with the stem of its checkpoint."""
        try:
            paths = list(self.path.iterdir())
        except FileNotFoundError:
            return []
        found = [(path, _OURS.fullmatch(path.name)) for path in paths if path.is_file()]
        return [(path, match[1]) for path, match in found if match]

    def _prune(self) -> list[str]:
        """Delete all checkpoints but the last two, damaged ones, and what a kill left.

        A manifest goes first, so that no checkpoint counts without its tensors.
        """
        warnings = []
        try:
            files = self._files()
        except OSError:
            return [f"cannot read {self.path} to delete old checkpoints"]
        for path, stem in sorted(files, key=lambda file: file[0].suffix != ".json"):
            if stem in self._complete and path.suffix != ".tmp":
                continue
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                warnings.append(f"cannot delete the old checkpoint {path}: {error.strerror}")
        return warnings


def _render_manifest(state: Path, size: int, sha256: str) -> bytes:
    text = json.dumps({"format": 1, "file": state.name, "bytes": size, "sha256": sha256}, indent=2)
    return (text + "\n").encode()


def _read(manifest: Path) -> Snapshot:
    """Read a checkpoint of which every byte is as it was written.

    The manifest is a function of the other file, so it is rendered again and compared: no
    byte of either file can change unnoticed.
    """
    state = manifest.with_suffix(".safetensors")
    try:
        with open_regular(state) as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            expected = _render_manifest(state, file.tell(), sha256)
        with open_regular(manifest) as file:
            found = file.read(len(expected) + 1)
        if found != expected:
            raise CheckpointError(f"{state} is damaged: it does not match {manifest.name}")
        with safe_open(state, framework="pt") as opened:
            values = json.loads(opened.metadata()[_KEY])
            # Cloned: safe_open returns a memory map of the file, which will be deleted.
            tensors = {name: opened.get_tensor(name).clone() for name in opened.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise CheckpointError(f"{state} is missing") from None
    except OSError as error:
        raise CheckpointError(f"{state} cannot be read: {error.strerror}") from None
    except (SafetensorError, KeyError, TypeError, ValueError, RecursionError):
        raise CheckpointError(f"{state} is not a checkpoint of this version of vggnet") from None
    return Snapshot(tensors, values)
