"""Settle a run before its first step: device, data, and everything that can be checked."""

from __future__ import annotations

from pathlib import Path

import torch

from vggnet.artifacts.atomic import check_writable
from vggnet.artifacts.model_file import check_suffix
from vggnet.data.dataset import Dataset, hold_out
from vggnet.data.storage import dataset_name, load_configured
from vggnet.engine.device import check_precision, choose_device, usable_cores
from vggnet.engine.schedule import count_steps
from vggnet.engine.session import Session
from vggnet.errors import ConfigError, DataError, DeviceError, RunFinishedError
from vggnet.run.circumstances import check_same_images, check_same_training
from vggnet.run.options import Options
from vggnet.run.origin import Origin
from vggnet.run.outcome import MODEL
from vggnet.run.plan import Plan, fit_to_data


def settle(origin: Origin, options: Options, session: Session) -> Plan:
    """Choose the device, load the data, and check everything that can be before training.

    Raises:
        RunFinishedError: There is nothing left to do.
        VggnetError: Of the kind that says what cannot be.
    """
    config, values = origin.config, origin.checkpoint.values if origin.checkpoint else {}
    recorded = values.get("output", f"{dataset_name(config.data.dataset)}_vggnet.pth")
    output = options.output or Path(recorded)
    check_suffix(output)
    if session.is_main:
        check_writable(output)
    device = _choose_own_device(config.train.device, session)
    check_precision(config.train.precision, device)
    dataset = load_configured(config.data)
    _check_common(dataset, session)
    config = fit_to_data(config, dataset, session)
    train, validation = hold_out(dataset.train, config.data.validation_size, config.train.seed)
    if values:
        check_same_training(values["config"], config, values["step"])
        check_same_images(values["dataset_sha256"], dataset.sha256)
        steps = -(-len(train) // config.train.global_batch_size)
        _check_unfinished(origin, values["step"], count_steps(config.train.epochs, steps))
    return Plan(
        config=config,
        dataset=dataset,
        train=train,
        validation=validation,
        device=device,
        session=session,
        threads=config.train.threads or max(1, usable_cores() // session.local_world_size),
        folder=origin.folder or options.runs,
        output=output,
        first_step=values.get("step", 0),
    )


def _choose_own_device(name: str, session: Session) -> torch.device:
    """Choose a device that this process can train on beside the others.

    Raises:
        DeviceError: It is not there, or cannot be shared, or gradients cannot be averaged on it.
    """
    if session.local_world_size > 1 and ":" in name:
        raise DeviceError(
            f"--device {name} would be shared by {session.local_world_size} processes; "
            f"use --device {name.partition(':')[0]}, which gives each its own"
        )
    device = choose_device(name, session.local_rank)
    if session.world_size > 1 and device.type not in ("cpu", "cuda"):
        raise DeviceError(
            f"several processes train on CPUs or NVIDIA GPUs, not on {device.type}; "
            "use one process, or --device cpu"
        )
    return device


def _check_common(dataset: Dataset, session: Session) -> None:
    """Refuse to train on other images than the main process does, as on another machine.

    Raises:
        DataError: They are not the same.
    """
    common = session.broadcast_object(dataset.sha256)
    if common != dataset.sha256:
        raise DataError(
            f"process {session.rank} finds other images of {dataset.name} than process 0: "
            f"SHA-256 {dataset.sha256[:12]}… and {common[:12]}…; copy them from one machine to all"
        )
    session.barrier()  # nothing is written while another process may still refuse


def _check_unfinished(origin: Origin, step: int, total: int) -> None:
    """Refuse to resume a run that has nothing left to do.

    Raises:
        RunFinishedError: It is complete.
        ConfigError: It is past the end that is asked for.
    """
    folder = origin.folder
    assert folder is not None
    if step > total:
        raise ConfigError(f"{folder} has already taken {step} steps, more than the {total} asked")
    if step == total and origin.finished:
        raise RunFinishedError(
            f"{folder} is finished: all {total} steps were taken, and its model is in "
            f"{folder / MODEL}; nothing was changed"
        )
