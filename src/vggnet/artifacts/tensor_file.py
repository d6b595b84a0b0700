"""Read tensors and plain values from files of PyTorch and safetensors; no code in them runs."""

from __future__ import annotations

import json
import pickle
import stat
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from vggnet.data.files import read_text
from vggnet.data.memory import available_bytes
from vggnet.errors import ModelFileError
from vggnet.model.weights import Unloaded

HUB_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""Files of weights in a folder of Hugging Face's Hub, in the order in which they are tried."""


def read_tensors(path: Path) -> object:
    """Return what a file of PyTorch or safetensors holds, its tensors as views of the file.

    A `state_dict` keeps its attribute `_metadata`; from a safetensors file, `_metadata[""]`
    is the file's metadata. Objects that are neither tensors nor plain values become `Unloaded`.

    Raises:
        ModelFileError: The file is missing, damaged, in another format, or too large.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ModelFileError("is not a regular file")
        with path.open("rb") as file:
            head = file.read(9)
    except FileNotFoundError:
        raise ModelFileError("does not exist; train a model with: vggnet train") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ModelFileError(f"cannot be read: {reason}") from None
    if head[8:9] == b"{":
        return _read_safetensors(path)
    if head[:2] == b"PK":
        return _read_zip(path)
    if head[:2] == b"\x80\x02":
        return _read_legacy(path)
    raise ModelFileError("is not a model file: neither PyTorch's format nor safetensors")


def find_hub_weights(folder: Path) -> Path:
    """Return the file of weights in a folder of Hugging Face's Hub.

    Raises:
        ModelFileError: There is none.
    """
    for name in HUB_WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    raise ModelFileError(f"is a folder without {' or '.join(HUB_WEIGHTS)}")


def read_hub_config(folder: Path) -> dict[str, Any]:
    """Return the content of a Hub folder's config.json; empty without one.

    Raises:
        ModelFileError: It is not a JSON object.
    """
    path = folder / "config.json"
    try:
        config = json.loads(read_text(path))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ModelFileError(f"{path.name} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise ModelFileError(f"{path.name} is not valid JSON") from None
    if not isinstance(config, dict):
        raise ModelFileError(f"{path.name} is not a JSON object")
    return config


def _read_safetensors(path: Path) -> object:
    try:
        with safe_open(path, framework="pt") as file:
            state = OrderedDict((name, file.get_tensor(name)) for name in file.keys())  # noqa: SIM118
            state._metadata = {"": file.metadata() or {}}  # type: ignore[attr-defined]
            return state
    except SafetensorError as error:
        raise ModelFileError(f"is a damaged safetensors file ({error})") from None


def _read_zip(path: Path) -> object:
    """Read what torch.save writes since PyTorch 1.6, without copying the tensors."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (OSError, zipfile.BadZipFile, ValueError, RuntimeError) as error:
        raise ModelFileError(f"is a damaged PyTorch file ({error})") from None
    names = {entry.filename.partition("/")[2] for entry in entries}
    if "constants.pkl" in names:
        raise ModelFileError(
            "is a TorchScript archive, which holds code; load it with torch.jit.load and save "
            "its state_dict()"
        )
    if "data.pkl" not in names:
        raise ModelFileError("is a zip archive that torch.save did not write")
    unpacked, size = sum(entry.file_size for entry in entries), path.stat().st_size
    if unpacked > size or any(entry.compress_type for entry in entries):
        raise ModelFileError(
            f"is a compressed archive: {size:,} bytes hold {unpacked:,}; write it again with "
            "torch.save, which does not compress"
        )
    return _load(path, mmap=True)


def _read_legacy(path: Path) -> object:
    """Read what torch.save wrote before PyTorch 1.6, which has to be copied to memory."""
    size, free = path.stat().st_size, available_bytes()
    if free is not None and size > free:
        raise ModelFileError(f"has {size / 1e9:.1f} GB, and {free / 1e9:.1f} GB of memory are free")
    return _load(path, mmap=False)


def _load(path: Path, mmap: bool) -> object:
    """Unpickle tensors and plain values; every other class becomes `Unloaded`."""
    try:
        with warnings.catch_warnings(), _without_classes(path) if mmap else nullcontext():
            warnings.simplefilter("ignore")  # such as torch's about quantized tensors
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except pickle.UnpicklingError:
        raise ModelFileError(
            "holds more than tensors and plain values, and loading it could run code; refused. "
            "Save the model's state_dict() instead"
        ) from None
    except Exception as error:  # a damaged pickle may raise anything
        reason = str(error).split("\n")[0]
        raise ModelFileError(f"is a damaged PyTorch file ({reason})") from None


def _without_classes(path: Path) -> AbstractContextManager[object]:
    """Let torch's unpickler put `Unloaded` in the place of every class that it does not allow."""
    names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    classes: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
        (type("Unloaded", (Unloaded,), {"name": name}), name) for name in names
    ]
    return torch.serialization.safe_globals(classes)
