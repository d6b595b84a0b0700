"""Find the run to resume, check that it would stay the same training, and restore its state."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from vggnet import __version__
from vggnet.artifacts.checkpoint import CheckpointFolder
from vggnet.artifacts.run_folder import CHECKPOINTS, FINISHED, MODEL, find_newest
from vggnet.config import Config, ModelConfig, differences
from vggnet.engine.device import describe_gpu
from vggnet.engine.fit import TrainState
from vggnet.engine.processor import cpu_name
from vggnet.engine.snapshot import Snapshot, restore_snapshot
from vggnet.errors import CheckpointError, ConfigError, RunFinishedError, quote
from vggnet.recipes import resolve_config
from vggnet.run.checkpointing import (
    Checkpoint,
    CheckpointRecord,
    History,
    epochs_since_best,
)
from vggnet.run.plan import Options, Plan, Start

Warn = Callable[[str], None]

_MAY_CHANGE = {
    *("train.epochs", "train.min_steps", "train.minutes"),
    *("train.threads", "train.device", "train.kernels"),
    *("data.dataset", "data.data_dir", "data.download", "data.cache"),
    "data.bit_depth",
}
"""Settings that a resumed run may change. The images are compared by hash, the rest by
`describe_circumstances`."""


def start_new(config: Config, options: Options, warn: Warn) -> Start:
    """Start from initial weights; a worker that torchrun restarted resumes its own run."""
    restarted = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"
    folder = find_newest(options.runs, launch_id()) if restarted else None
    if folder is None:
        return Start(config)
    try:
        checkpoint = load_checkpoint(folder, warn)
    except CheckpointError:  # killed before the first checkpoint
        checkpoint = None
    # Not `config`, which lacks what the run has taken over from --init.
    restarted_with = checkpoint.record.config if checkpoint else config
    return Start(restarted_with, folder, checkpoint, _is_finished(folder))


def start_from(
    folder: Path | None, layers: Sequence[Mapping[str, Any]], options: Options, warn: Warn
) -> Start:
    """Start from a run's latest complete checkpoint, and its configuration under `layers`.

    Args:
        folder: The run folder; default: `options.name`, or else the newest in `options.runs`.
        layers: Settings that override those of the run.
        options: See `Options`.
        warn: Called for each damaged checkpoint.

    Raises:
        CheckpointError: There is no complete checkpoint, or it cannot be read.
        ConfigError: A setting in `layers` is invalid.
    """
    if folder is None and options.name:
        folder = options.runs / options.name
    try:
        folder = folder or find_newest(options.runs)
        if folder is None:
            raise CheckpointError(f"there is no run to resume in {options.runs}")
        if not stat.S_ISDIR(folder.stat().st_mode):
            raise CheckpointError(
                f"{folder} is a file, not the folder of a run; to start a new run from a model "
                f"file's weights: {quote(['vggnet', 'train', '--init', str(folder)])}"
            )
        checkpoint = load_checkpoint(folder, warn)
    except FileNotFoundError:
        raise CheckpointError(f"there is no run to resume in {folder or options.runs}") from None
    except OSError as error:
        raise CheckpointError(f"cannot read {error.filename}: {error.strerror}") from None
    before = checkpoint.record.config
    config = resolve_config(before.model_dump(mode="json"), *layers)
    if config.train.init != before.train.init:
        raise ConfigError(
            "--init starts a new run, and --resume continues one: leave out one of the two"
        )
    return Start(config, folder, checkpoint, _is_finished(folder))


def load_checkpoint(folder: Path, warn: Warn) -> Checkpoint:
    """Load a run's latest complete checkpoint, and warn about newer ones that are damaged."""
    snapshot, damage = CheckpointFolder(folder / CHECKPOINTS).load_latest()
    try:
        record = CheckpointRecord.model_validate(snapshot.values)
    except ValidationError as error:
        reasons = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
        raise CheckpointError(
            f"the latest checkpoint in {folder} is not one of this version of vggnet "
            f"({'; '.join(reasons[:3])})"
        ) from None
    for message in damage:
        warn(f"{message}; using the previous checkpoint, of step {record.step}")
    return Checkpoint(snapshot.tensors, record)


def launch_id() -> str:
    """Return torchrun's name for this launch, which survives restarts; "" without torchrun."""
    return os.environ.get("TORCHELASTIC_RUN_ID", "")


def restore(plan: Plan, state: TrainState, circumstances: Mapping[str, Any], warn: Warn) -> History:
    """Restore the state of the run that `plan` resumes, after all checks; return its history.

    Raises:
        RunFinishedError: All steps are taken, and the results are written.
        ConfigError: A setting, the images or the number of processes would make it another
            training.
        CheckpointError: The checkpoint is not one of this network.
    """
    checkpoint = plan.start.checkpoint
    if checkpoint is None:
        return History()
    record, tensors = checkpoint.record, dict(checkpoint.tensors)
    _check_settings(record, plan.config, plan.folder if plan.start.finished else None)
    _check_images(record, plan.dataset.sha256)
    _check_unfinished(plan)
    for warning in _compare_circumstances(record, circumstances, plan.config.model):
        warn(warning)
    try:
        history = History.from_checkpoint(tensors.pop("history", torch.empty(0)), record.epochs)
        history.best = {
            name.removeprefix("best."): tensors.pop(name)
            for name in list(tensors)
            if name.startswith("best.")
        }
        values = record.model_dump(include={"step", "seconds", "elapsed", "scaler"})
        restore_snapshot(state, Snapshot(tensors, values))
        if state.sums_from != (history.epochs[-1].step if history.epochs else 0):
            raise ValueError("its history does not end where the epoch in progress starts")
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"the checkpoint does not fit this network: {reason}") from None
    return history


def describe_circumstances(plan: Plan, kernels: str) -> dict[str, str | int | None]:
    """Return what the last bits of the result depend on besides the configuration."""
    return {
        "processes": plan.session.world_size,
        "threads": plan.threads,
        "device": plan.device.type,
        "processor": cpu_name(),
        "cpu_isa": torch.backends.cpu.get_cpu_capability(),
        "kernels": kernels,
        **describe_gpu(plan.device),
        "torch": str(torch.__version__),
        "vggnet": __version__,
    }


def _check_settings(record: CheckpointRecord, config: Config, folder: Path | None) -> None:
    # A linear schedule depends on when it ends. The number of epochs includes the minimum of steps.
    ends = {"train.epochs", "train.minutes"}
    free = _MAY_CHANGE if config.train.schedule == "constant" else _MAY_CHANGE - ends
    changed = differences(record.config, config, free)
    if not changed:
        return
    way_out = "start a new run without --resume"
    if {one.name for one in changed} <= ends and folder is not None:
        command = quote(["vggnet", "train", "--init", str(folder / MODEL)])
        way_out = f"start a new run from its weights: {command}"
    raise ConfigError(
        f"{'; '.join(map(str, changed))}: this cannot change after {record.step} steps. Keep the "
        f"old value, or {way_out}"
    )


def _check_images(record: CheckpointRecord, sha256: str) -> None:
    if record.dataset_sha256 != sha256:
        raise ConfigError(
            f"the dataset has changed: its SHA-256 was {record.dataset_sha256[:12]}… and is now "
            f"{sha256[:12]}…; give the images that the run started with, or start a new run "
            "without --resume"
        )


def _check_unfinished(plan: Plan) -> None:
    step, total, folder, train = plan.first_step, plan.total_steps, plan.folder, plan.config.train
    assert folder is not None
    assert plan.start.checkpoint is not None
    record = plan.start.checkpoint.record
    if train.minutes:
        is_over = record.elapsed >= 60 * train.minutes
    elif step > total:
        raise ConfigError(f"{folder} has taken {step} steps, more than the {total} requested")
    else:
        is_over = step == total
    since_best = epochs_since_best([epoch.validation for epoch in record.epochs])
    if train.patience is not None and since_best >= train.patience:
        is_over = True
    if is_over and plan.start.finished:
        raise RunFinishedError(
            f"{folder} is finished: all {step} steps are taken, and the model is in "
            f"{folder / MODEL}; nothing was changed"
        )


def _compare_circumstances(
    record: CheckpointRecord, now: Mapping[str, Any], model: ModelConfig
) -> list[str]:
    """Return a warning for each change that can alter the result.

    Raises:
        ConfigError: The number of processes has changed, and the network has batch norm.
    """
    before = record.circumstances
    processes = before.get("processes")
    if model.batch_norm and processes != now["processes"]:
        raise ConfigError(
            f"the run had {processes} processes and now has {now['processes']}: batch norm depends "
            "on the number of processes, so resume with the same number"
        )
    dropout = ("processes", "device") if model.dropout else ()
    return [
        f"{key} was {before[key]} and is now {value}: "
        + ("dropout drops other units" if key in dropout else "results can differ in the last bits")
        for key, value in now.items()
        if key in before and before[key] != value
    ]


def _is_finished(folder: Path) -> bool:
    try:
        (folder / FINISHED).stat()
    except FileNotFoundError:
        return False
    return True
