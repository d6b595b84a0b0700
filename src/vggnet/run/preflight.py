"""Everything that can fail before the first step: device, data, settings, output."""

from __future__ import annotations

from pathlib import Path

import torch

from vggnet.artifacts.model_file import check_suffix
from vggnet.artifacts.outputs import MODEL, check_output
from vggnet.config import Config, check_text
from vggnet.data.dataset import Dataset, LabeledImages, hold_out, hold_out_tenth
from vggnet.data.storage import dataset_name, is_path, load_configured
from vggnet.engine.device import check_precision, choose_device
from vggnet.engine.processor import usable_cores
from vggnet.engine.session import Session
from vggnet.errors import ConfigError, DataError, DeviceError
from vggnet.model.vgg import padded_size
from vggnet.run.calibration import choose_calibration_images
from vggnet.run.initial import load_initial
from vggnet.run.plan import Options, Plan, Start


def prepare(start: Start, options: Options, session: Session, given: Dataset | None = None) -> Plan:
    """Choose the device, load the data, and check everything that can be checked.

    Args:
        start: What to start from.
        options: Where to write.
        session: This process and the others.
        given: The dataset, in place of the one that the configuration names.

    Raises:
        VggnetError: Something is missing, invalid or contradictory.
    """
    config = start.config
    if given:
        data = config.data.model_copy(update={"dataset": given.name})
        config = config.model_copy(update={"data": data})
    output = _choose_output(start, config, options)
    if session.is_main:
        named = filter(None, (config.data.dataset, config.train.init))
        check_output(output, MODEL, [*options.inputs, *map(Path, named)], options.force)
    if config.train.init is None and (config.recipe == "finetune" or config.train.init_lr != 1):
        raise ConfigError(
            "the recipe finetune and --init-lr need trained weights to start from: add --init FILE"
        )
    device = _choose_device(config.train.device, session)
    check_precision(config.train.precision, device)
    recorded = start.checkpoint.record.dataset_sha256 if start.checkpoint else None
    dataset = given or load_configured(config.data, recorded)
    _check_same_images(dataset, session)
    initial = None if start.checkpoint else load_initial(config)
    if initial:
        config = initial.adopt(config, dataset.shape[0])
    config = fit_to_data(config, dataset, session)
    train, validation = _hold_out(dataset, config)
    config = complete_training(config, len(train), validation is not None)
    train, calibration = choose_calibration_images(config, train, validation)
    config = complete_training(config, len(train), validation is not None)  # of fewer images
    return Plan(
        start=start,
        config=config,
        dataset=dataset,
        train=train,
        validation=validation,
        calibration=calibration,
        device=device,
        session=session,
        threads=config.train.threads or max(1, usable_cores() // session.local_world_size),
        output=output,
        initial=initial,
    )


def fit_to_data(config: Config, dataset: Dataset, session: Session) -> Config:
    """Complete a configuration with what the dataset decides.

    Raises:
        ConfigError: A batch is smaller than the number of processes, or mean and std do not
            have one value or one per channel.
    """
    if config.train.global_batch_size < session.world_size:
        raise ConfigError(
            f"batch size {config.train.global_batch_size} is too small for "
            f"{session.world_size} processes; use at least {session.world_size}"
        )
    channels, height, width = dataset.shape
    scaling = {name: getattr(config.data, name) for name in ("mean", "std")}
    for name, values in scaling.items():
        if len(values) not in (1, channels):
            raise ConfigError(
                f"data.{name} has {len(values)} values, and {dataset.name} {channels} channels; "
                "give one value, or one per channel"
            )
        scaling[name] = values if len(values) == channels else values * channels
    model = config.model.model_copy(
        update={
            "in_channels": channels,
            "num_classes": len(dataset.classes),
            "image_size": padded_size(config.model, max(height, width)),
        }
    )
    values = {**scaling, "bit_depth": dataset.bit_depth or config.data.bit_depth}
    if dataset.validation is not None or not is_path(config.data.dataset):
        values["validation_size"] = config.data.validation_size or 0
    data = config.data.model_copy(update=values)
    return config.model_copy(update={"model": model, "data": data})


def complete_training(config: Config, images: int, has_validation: bool) -> Config:
    """Turn what depends on the network and the number of images into numbers.

    Raises:
        ConfigError: No layer is left to train, or the settings need validation images.
    """
    train, model = config.train, config.model
    frozen = model.depth - len(model.layers.hidden) - 1
    frozen = frozen if train.freeze == "features" else train.freeze
    if frozen >= model.depth:
        raise ConfigError(
            f"--freeze {frozen} leaves nothing to train: {model.name} has {model.depth} layers "
            "with weights"
        )
    for flag, needs_it in (
        ("--patience", train.patience is not None),
        ("--keep best", train.keep == "best"),
    ):
        if needs_it and not has_validation:
            raise ConfigError(f"{flag} needs validation images: add --validation-size 1000")
    epochs = max(train.epochs, train.min_steps / -(-images // train.global_batch_size))
    changes = {"freeze": frozen, "epochs": epochs}
    return config.model_copy(update={"train": train.model_copy(update=changes)})


def _hold_out(dataset: Dataset, config: Config) -> tuple[LabeledImages, LabeledImages | None]:
    """Return the images to train on, and those to validate on, if any."""
    size, seed = config.data.validation_size, config.train.seed
    if size is None:
        return hold_out_tenth(dataset.train, seed)
    return hold_out(dataset.train, size, seed) if size else (dataset.train, dataset.validation)


def _choose_output(start: Start, config: Config, options: Options) -> Path:
    recorded = start.checkpoint.record.output if start.checkpoint else None
    output = options.output or Path(recorded or f"{dataset_name(config.data.dataset)}_vggnet.pth")
    try:
        check_text(str(output))
    except ValueError as error:
        raise ConfigError(f"--output {output}: {error}") from None
    check_suffix(output)
    return output


def _choose_device(name: str, session: Session) -> torch.device:
    """Choose this process's own device.

    Raises:
        DeviceError: It is unavailable, would be shared, or cannot average gradients.
    """
    if session.local_world_size > 1 and ":" in name:
        raise DeviceError(
            f"--device {name} would be shared by {session.local_world_size} processes; "
            f"use --device {name.partition(':')[0]}, which gives each process its own"
        )
    device = choose_device(name, session.local_rank)
    if session.world_size > 1 and device.type not in ("cpu", "cuda"):
        raise DeviceError(
            f"training with several processes needs CPUs or NVIDIA GPUs, not {device.type}; "
            "use one process, or --device cpu"
        )
    return device


def _check_same_images(dataset: Dataset, session: Session) -> None:
    """Check that all processes have loaded the same images, as on several machines.

    Raises:
        DataError: They have not.
    """
    common = session.broadcast_object(dataset.sha256)
    if common != dataset.sha256:
        raise DataError(
            f"process {session.rank} has other images of {dataset.name} than process 0: SHA-256 "
            f"{dataset.sha256[:12]}… and {common[:12]}…; copy them from one machine to all others"
        )
