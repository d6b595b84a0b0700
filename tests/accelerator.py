"""A simulated accelerator, for tests of what otherwise only a GPU shows.

Its tensors are on the device `simulated:0`, and their values are in the CPU's memory, so results
must equal the CPU's bit for bit. As with CUDA, tensors of the host and of the device may not be
mixed, except for scalars. It counts its operations and every transfer, knows what is resident, and
has a clock: an operation takes time after it was started, and only a transfer to the host or a
synchronization waits for it.

It uses the backend that PyTorch keeps for other vendors' devices (PrivateUse1). Torch 2.9 cannot
define one in Python, so there tests that import this module are skipped.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

if not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"):
    pytest.skip(
        f"torch {torch.__version__} cannot define a device in Python", allow_module_level=True
    )

NAME = "simulated"
COPIES = ("aten::_to_copy", "aten::copy_")
OF_UNKNOWN_SIZE = ("aten::nonzero", "aten::masked_select")
"""The host waits for the size of these operations' results."""


@dataclass
class Machine:
    """The host's clock, the device's work, and what went from one to the other."""

    launch_seconds: float = 1e-5
    """What it takes the host to start an operation."""
    work_seconds: float = 1e-4
    """What an operation takes the device."""
    now: float = 0.0
    """The host's clock."""
    idle_at: float = 0.0
    """When the device will have finished its work."""
    operations: list[str] = field(default_factory=list)
    """Operations started so far."""
    uploads: list[str] = field(default_factory=list)
    """Copies from the host to the device, by the operation that made them."""
    waits: list[str] = field(default_factory=list)
    """Likewise, what went from the device to the host, which waits for it."""
    tensors: list[weakref.ref[OnDevice]] = field(default_factory=list)

    def start(self, name: str) -> None:
        """Start an operation; the device runs it after those before it."""
        self.operations.append(name)
        self.now += self.launch_seconds
        self.idle_at = max(self.idle_at, self.now) + self.work_seconds

    def wait(self) -> None:
        """Let the host wait until the device is idle."""
        self.now = max(self.now, self.idle_at)

    def resident_bytes(self) -> int:
        """Return the size of everything that is stored on the device."""
        alive = [one for reference in self.tensors if (one := reference()) is not None]
        self.tensors = [weakref.ref(one) for one in alive]
        storages = [one.values.untyped_storage() for one in alive]
        return sum({one.data_ptr(): one.nbytes() for one in storages}.values())


MACHINE = Machine()


class OnDevice(Tensor):
    """A tensor on the device."""

    values: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, values: Tensor) -> OnDevice:
        made: OnDevice = Tensor._make_wrapper_subclass(
            cls,
            values.shape,
            strides=values.stride(),
            storage_offset=values.storage_offset(),
            dtype=values.dtype,
            device=DEVICE,
        )
        made.values = values
        MACHINE.tensors.append(weakref.ref(made))
        return made

    def tolist(self) -> Any:
        """Return plain values; PyTorch's own method needs memory that a wrapper lacks."""
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(
        cls, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        return _call(function, args, kwargs or {})


class _Dispatch(TorchDispatchMode):
    """Sends what creates tensors on the device to it."""

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        return _call(function, args, kwargs or {})


def _call(function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Run an operation where its tensors are, or where it is told to put its result."""
    tensors = [one for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)]
    ours = [one for one in tensors if isinstance(one, OnDevice)]
    target = torch.device(kwargs["device"]).type if kwargs.get("device") else None
    if not ours and target != NAME:
        return function(*args, **kwargs)
    name = function.name().partition(".")[0]
    stays = target in (None, NAME)
    if name == "aten::copy_":
        stays = isinstance(args[0], OnDevice)
    if name in COPIES:
        _copy(name, isinstance(tensors[-1], OnDevice), stays)
    else:
        _check(name, tensors)
        if not (_is_view(function) or name.startswith(("aten::empty", "aten::new_empty"))):
            MACHINE.start(name)
    if target == NAME:
        kwargs = {**kwargs, "device": "cpu"}
    plain = tree_map_only(OnDevice, lambda one: one.values, (tuple(args), dict(kwargs)))
    result = function(*plain[0], **plain[1])
    by_mask = name == "aten::index" and any(one.dtype == torch.bool for one in tensors[1:])
    if by_mask or name in OF_UNKNOWN_SIZE or isinstance(result, bool | int | float):
        MACHINE.waits.append(name)
        MACHINE.wait()
    owners = {id(one.values): one for one in ours}

    def own(one: Tensor) -> Tensor:
        return owners[id(one)] if id(one) in owners else OnDevice(one)

    return tree_map_only(Tensor, own, result) if stays else result


def _copy(name: str, from_device: bool, to_device: bool) -> None:
    if from_device and to_device:
        MACHINE.start(name)
    elif to_device:
        MACHINE.uploads.append(name)
    else:
        MACHINE.waits.append(name)
        MACHINE.wait()


def _check(name: str, tensors: Sequence[Tensor]) -> None:
    """Refuse tensors of the host among those of the device.

    Raises:
        RuntimeError: There is one, and it is not a scalar.
    """
    for one in tensors:
        if not isinstance(one, OnDevice) and one.dim():
            raise RuntimeError(f"{name}: a tensor of the host among those of {DEVICE}")


def _is_view(function: Any) -> bool:
    returns = function._schema.returns
    return any(one.alias_info is not None and not one.alias_info.is_write for one in returns)


class _Backend:
    """What PyTorch asks of the module of a device, such as `torch.cuda`."""

    default_generators = (torch.default_generator,)

    def is_initialized(self) -> bool:
        return True

    def is_available(self) -> bool:
        return True

    def current_device(self) -> int:
        return 0

    def device_count(self) -> int:
        return 1

    def _is_in_bad_fork(self) -> bool:
        return False

    def manual_seed_all(self, seed: int) -> None:
        """Do nothing: the generator is the CPU's."""

    def get_rng_state(self, device: torch.device) -> Tensor:
        return torch.get_rng_state()

    def set_rng_state(self, state: Tensor, device: torch.device) -> None:
        torch.set_rng_state(state)

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.float16, torch.bfloat16]

    def synchronize(self, device: torch.device) -> None:
        assert device == DEVICE
        MACHINE.wait()

    def empty_cache(self) -> None:
        """Do nothing: nothing is kept."""


def _in_half_precision(name: str) -> Any:
    """Return an operation that casts its tensors as autocast does on other devices."""

    def cast(*args: Any) -> Any:
        half = torch.get_autocast_dtype(NAME)
        changed = [one.to(half) if isinstance(one, Tensor) else one for one in args]
        with torch.autocast(NAME, enabled=False):
            return getattr(torch.ops.aten, name)(*changed)

    return cast


backend_registration._setup_privateuseone_for_python_backend(NAME, backend_module=_Backend())
DEVICE = torch.device(NAME, 0)
"""The device."""

_OTHERS, _LIBRARY = torch.library.Library("_", "IMPL"), torch.library.Library("aten", "IMPL")
_OTHERS.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
for _name in ("conv2d", "linear"):
    _LIBRARY.impl(_name, _in_half_precision(_name), "AutocastPrivateUse1")


@contextmanager
def accelerator() -> Iterator[Machine]:
    """Provide the device, with all counts and clocks at zero."""
    MACHINE.__init__()  # type: ignore[misc]
    torch._C._set_only_lift_cpu_tensors(True)  # else torch.tensor(..., device=DEVICE) fails
    try:
        # Without threads: one that still holds Python objects at the end of the process aborts it.
        with torch.autograd.set_multithreading_enabled(False), _Dispatch():
            yield MACHINE
    finally:
        torch._C._set_only_lift_cpu_tensors(False)
