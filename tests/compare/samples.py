"""Invented results for tests, marked as such; nothing in them was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from conftest import idx_bytes
from vggnet.compare.result import Accelerator, Machine, Parts, Result, Row, Setting, SweepPoint
from vggnet.config import SECTIONS
from vggnet.data.dataset import Dataset
from vggnet.recipes import resolve_config

HOST = "INVENTED FOR A TEST"


def make_row(
    device: str = "cpu",
    seconds: tuple[float, ...] = (10.0, 11.0, 12.0),
    losses: tuple[float, ...] = (2.3, 1.0),
    mistakes: tuple[int, ...] = (1, 2, 3),
    **changes: Any,
) -> Row:
    """Invent a strict row; `changes` apply to its setting or to the row."""
    setting = {
        "device": device,
        "precision": "fp32",
        "global_batch_size": 128,
        "threads": 2 if device == "cpu" else None,
        "kernels": "torch",
    }
    row: dict[str, Any] = {"strict": True, "best": False, "steps": len(losses)}
    for name, value in changes.items():
        (setting if name in setting else row)[name] = value
    values = {
        "setting": Setting.model_validate(setting),
        "images": len(losses) * setting["global_batch_size"],
        "seconds": seconds,
        "warmup_seconds": (1.0, 0.5),
        "step_losses": losses,
        "mistakes": mistakes,
        "test_images": 1000,
        "peak_flops_per_second": 1e12,
        "parts": Parts(
            batch_ms=1, forward_ms=2, backward_ms=4, optimizer_ms=1, other_ms=1, step_ms=9
        ),
    }
    return Row.model_validate({**values, **row})


def make_result(*rows: Row, host: str = HOST, **changes: Any) -> Result:
    """Invent a result; `changes` apply to the recipe's sections or to the result."""
    config = resolve_config({name: changes.pop(name, {}) for name in SECTIONS})
    machine = Machine(
        host=host,
        system="none",
        cpu=HOST,
        cpu_isa="none",
        cpus=2,
        usable_cores=2,
        memory_gib=None,
        accelerators=changes.pop(
            "accelerators", (Accelerator(device="cuda:0", name=HOST, power_limit_watts=1.0),)
        ),
        python="3",
        torch=changes.pop("torch", "0.0"),
        cuda=None,
        tf32="off",
        vggnet="0",
        collect_env=HOST,
    )
    values: dict[str, Any] = {
        "complete": True,
        "created": "never",
        "options": "--steps 2",
        "machine": machine,
        "config": config,
        "dataset_sha256": "0" * 64,
        "images_per_epoch": 60_000,
        "recipe_epochs": 1.0,
        "flops_per_image": 1e8,
        "counted_flops_per_image": 1e8,
        "energy_source": None,
        "rows": rows or (make_row(),),
    }
    return Result.model_validate({**values, **changes})


def write_digits(folder: Path, mnist: Dataset) -> Path:
    """Write IDX files with 320 training and 100 test images of MNIST."""
    folder.mkdir()
    for stem, examples, count in (("train", mnist.train, 320), ("t10k", mnist.test, 100)):
        images, labels = examples.images[:count, 0], examples.labels[:count]
        (folder / f"{stem}-images-idx3-ubyte").write_bytes(idx_bytes(images))
        (folder / f"{stem}-labels-idx1-ubyte").write_bytes(idx_bytes(labels))
    return folder


def make_point(x: float, seconds: float, device: str = "cpu") -> SweepPoint:
    """Invent a point of a sweep over batch sizes."""
    setting = make_row(device, global_batch_size=int(x)).setting
    return SweepPoint(setting=setting, images=1000, seconds=(seconds,), sweep="batch", x=x)
