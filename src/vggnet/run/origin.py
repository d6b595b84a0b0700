"""Where a run begins: at the start, or in a folder that is there, at a checkpoint."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vggnet.artifacts.checkpoint import CheckpointFolder
from vggnet.artifacts.run_folder import CHECKPOINTS, FINISHED, find_newest
from vggnet.config import Config
from vggnet.engine.snapshot import Snapshot
from vggnet.errors import CheckpointError
from vggnet.recipes import resolve_config
from vggnet.run.options import Options
from vggnet.run.plan import Reporter

_RECORDED = (
    "step",
    "seconds",
    "scaler",
    "config",
    "dataset_sha256",
    "circumstances",
    "output",
    "epochs",
)
"""Values without which a checkpoint says too little to go on from."""


@dataclass(frozen=True)
class Origin:
    """A configuration, and what is there of its run."""

    config: Config
    folder: Path | None = None
    checkpoint: Snapshot | None = None
    finished: bool = False
    """Whether it has left all that it promises; the main process's disk alone may tell."""


def begin(config: Config, options: Options, reporter: Reporter) -> Origin:
    """Begin at the start; a worker that torchrun has restarted goes on with its own run."""
    folder = find_newest(options.runs, launch_id()) if _is_restarted() else None
    if folder is None:
        return Origin(config)
    try:
        return Origin(config, folder, _load(folder, reporter), _is_finished(folder))
    except CheckpointError:  # killed before the first
        return Origin(config, folder)


def go_on(
    folder: Path | None,
    layers: Sequence[Mapping[str, Any]],
    options: Options,
    reporter: Reporter,
) -> Origin:
    """Find a run's latest whole checkpoint, and its configuration under `layers`.

    Args:
        folder: The run's; None takes `options.name`, or else the newest of `options.runs`.
        layers: Settings to lay over the run's own.
        options: As in `vggnet.run.run`.
        reporter: Told of checkpoints that are damaged.

    Raises:
        CheckpointError: There is none, or its folder may not be read.
    """
    path = folder or (options.runs / options.name if options.name else None)
    try:
        path = path or find_newest(options.runs)
        if path is None or not path.is_dir():
            raise CheckpointError(f"there is no run in {path or options.runs} to resume")
        checkpoint = _load(path, reporter)
    except OSError as error:
        raise CheckpointError(f"cannot read {error.filename}: {error.strerror}") from None
    config = resolve_config(checkpoint.values["config"], *layers)
    return Origin(config, path, checkpoint, _is_finished(path))


def launch_id() -> str:
    """Return what torchrun calls this launch, the same after a restart; "" without it."""
    return os.environ.get("TORCHELASTIC_RUN_ID", "")


def _is_restarted() -> bool:
    return os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"


def _is_finished(folder: Path) -> bool:
    return (folder / FINISHED).exists()


def _load(folder: Path, reporter: Reporter) -> Snapshot:
    """Load a run's latest whole checkpoint, and warn of damaged ones that are newer."""
    checkpoint, damage = CheckpointFolder(folder / CHECKPOINTS).load_latest()
    if missing := [name for name in _RECORDED if name not in checkpoint.values]:
        raise CheckpointError(
            f"the latest checkpoint in {folder} lacks {', '.join(missing)}: it was not written "
            "by `vggnet train`, or by another version of it"
        )
    for sentence in damage:
        step = checkpoint.values["step"]
        reporter.warned(f"{sentence}; going on from the one before it, step {step}")
    return checkpoint
