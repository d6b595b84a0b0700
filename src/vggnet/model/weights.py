"""Weights of any VGG, as other projects save them, under torchvision's names.

Projects nest a `state_dict` in a checkpoint, wrap networks in other modules, and name
layers differently. This module undoes that; it reads no files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vggnet.errors import ModelFileError

CONTAINERS = (
    "state_dict",
    "model_state_dict",
    "model",
    "net",
    "ema",
    "state_dict_ema",
    "model_ema",
    "network",
    "weights",
)
"""Keys under which checkpoints hold a state_dict, in the order in which they are tried."""

WRAPPERS = {"module", "_orig_mod", "model", "net", "ema_model"}
"""Parts of a tensor's name that DataParallel, torch.compile, Lightning and others add."""

_RENAMED = (
    # timm computes the hidden layers as convolutions over the whole feature map.
    (re.compile(r"^pre_logits\.fc1\."), "classifier.0."),
    (re.compile(r"^pre_logits\.fc2\."), "classifier.3."),
    (re.compile(r"^head\.fc\."), "classifier.6."),
    # A classifier that is one layer, and no nn.Sequential.
    (re.compile(r"^classifier\.(weight|bias)$"), r"classifier.0.\1"),
)

_COUNTERS = ("num_batches_tracked", "n_averaged")
"""Last part of the names of integers that no prediction needs."""

_FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)

_MAX_DEPTH = 5
"""Levels of dicts around a state_dict."""

_CLASSIFIER = re.compile(r"^classifier\.(\d+)\.(\w+)$")


class Unloaded:
    """Stands for a Python object in a file whose class is not loaded, and runs no code."""

    name: ClassVar[str]
    """The class or function that the file asks for."""
    is_module = False

    def __new__(cls, *_args: object, **_kwargs: object) -> Unloaded:
        """Ignore what the object would be made from."""
        return super().__new__(cls)

    def __setstate__(self, state: object) -> None:
        """Note whether the object is an nn.Module, and ignore the rest."""
        self.is_module = isinstance(state, dict) and "_modules" in state


def find_state_dict(values: object) -> Mapping[Any, Any]:
    """Return the state_dict in what a file holds: the values themselves, or nested in dicts.

    Raises:
        ModelFileError: There is none, and what there is instead.
    """
    for _ in range(_MAX_DEPTH):
        if isinstance(values, Unloaded):
            if values.is_module:
                raise ModelFileError(
                    f"holds a whole module ({values.name}), which cannot be loaded without running "
                    "its code; load it in PyTorch and save its state_dict()"
                )
            raise ModelFileError(
                f"holds a Python object ({values.name}), and loading that could run code; "
                "refused. Save the model's state_dict() instead"
            )
        if not isinstance(values, Mapping):
            break
        found = [values[key] for key in CONTAINERS if key in values]
        inner = next((one for one in found if isinstance(one, Mapping | Unloaded)), None)
        if inner is None:
            if values and not any(isinstance(one, Tensor) for one in values.values()):
                break
            return values
        values = inner
    raise ModelFileError("holds no state_dict; save the model's state_dict()")


def to_torchvision(state: Mapping[Any, Any]) -> dict[str, Tensor]:
    """Return a VGG's tensors under torchvision's names, still as the file stores them.

    Values that are no tensors are left out, and so are counters that predictions do not need.

    Raises:
        ModelFileError: A tensor is not one of plain floating-point values, or two have the
            same name after prefixes are removed.
    """
    found: dict[str, Tensor] = {}
    origins: dict[str, str] = {}
    for name, tensor in state.items():
        if not isinstance(tensor, Tensor) or str(name).rpartition(".")[2] in _COUNTERS:
            continue
        _check_tensor(str(name), tensor)
        new = ".".join(part for part in str(name).split(".") if part not in WRAPPERS)
        for pattern, replacement in _RENAMED:
            new = pattern.sub(replacement, new)
        if new in found:
            raise ModelFileError(
                f"{origins[new]} and {name} are both {new} without their prefixes; save only "
                "one of the two networks"
            )
        origins[new] = str(name)
        is_linear = new.startswith("classifier.") and tensor.ndim == 4
        found[new] = tensor.detach().flatten(1) if is_linear else tensor.detach()
    return _add_biases(_number_classifier(found))


def _check_tensor(name: str, tensor: Tensor) -> None:
    kind = str(tensor.dtype).removeprefix("torch.")
    if type(tensor) not in (Tensor, nn.Parameter) or tensor.layout != torch.strided:
        kind = "sparse" if "sparse" in str(tensor.layout) else type(tensor).__name__
    elif tensor.device.type != "cpu":
        raise ModelFileError(f"its tensor {name} has a shape but no values")
    elif not tensor.is_quantized and tensor.dtype in _FLOATS:
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise ModelFileError(
                f"its tensor {name} repeats few stored values over the shape "
                f"{tuple(tensor.shape)}; call .contiguous() before you save it"
            )
        return
    raise ModelFileError(
        f"its tensor {name} is {kind}; save dense tensors of float32, float16 or bfloat16"
    )


def _number_classifier(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Number fully connected layers as torchvision does, whatever stands between them."""
    linears = sorted(
        int(match[1])
        for name, tensor in tensors.items()
        if (match := _CLASSIFIER.match(name)) and match[2] == "weight" and tensor.ndim == 2
    )
    numbers = {old: 3 * place for place, old in enumerate(linears)}
    renamed = {}
    for name, tensor in tensors.items():
        if match := _CLASSIFIER.match(name):
            if int(match[1]) not in numbers:
                raise ModelFileError(
                    f"classifier.{match[1]} is not a fully connected layer; vggnet's networks "
                    "have only those, with ReLU and dropout between them"
                )
            name = f"classifier.{numbers[int(match[1])]}.{match[2]}"
        renamed[name] = tensor
    return renamed


def _add_biases(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Add zero biases to convolutions that have none because batch norm follows them."""
    for name in [name for name in tensors if name.endswith(".running_mean")]:
        part, _, number = name.removesuffix(".running_mean").rpartition(".")
        weight = tensors.get(f"{part}.{int(number) - 1}.weight") if number.isdecimal() else None
        if weight is not None:
            tensors.setdefault(f"{part}.{int(number) - 1}.bias", torch.zeros(len(weight)))
    return tensors
