"""The state of training as named tensors and plain values, and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vggnet.engine.fit import TrainState
from vggnet.engine.optimizer import averages_of, leave_to_adamw


@dataclass(frozen=True)
class Snapshot:
    """Everything that decides how training continues, on the CPU.

    Learning rate, order of the images and random numbers of dropout are not in it: they are
    pure functions of configuration and step.
    """

    tensors: dict[str, Tensor]
    """`network.*` and `averaged.*`: parameters and buffers; `optimizer.*`: the averages of each
    parameter; `sums`: `TrainState.sums` of the epoch in progress, over all processes."""
    values: dict[str, Any]
    """`step`, `seconds`, `elapsed` and `scaler`, ready for JSON."""


def take_snapshot(state: TrainState) -> Snapshot:
    """Copy the state from the device. All processes must call this at the same step.

    On a CPU the tensors may be the state's own: write them to disk before the next step.

    With several processes, the sums are added up. Everything else is the same on each, except
    for the running statistics of batch norm: those of the main process count, since every step
    starts by copying them to the others.
    """
    sums = state.session.all_reduce(state.sums[: state.step - state.sums_from].clone())
    tensors = {"sums": sums, **_tensors(state)}
    values = {"step": state.step, "seconds": state.seconds, "elapsed": state.elapsed}
    return Snapshot(
        {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()},
        {**values, "scaler": state.scaler.state_dict()},
    )


@torch.no_grad()
def restore_snapshot(state: TrainState, snapshot: Snapshot) -> None:
    """Copy a snapshot into the state.

    Raises:
        ValueError: A tensor is missing, unknown, or of another shape or type.
        RuntimeError: The values of the scaler are not valid.
    """
    for name, parameter in state.network.named_parameters():
        if not parameter.requires_grad:
            continue
        if f"optimizer.{name}.exp_avg" in snapshot.tensors:
            leave_to_adamw(state.optimizer, parameter)
        own = state.optimizer.state[parameter]
        for key in averages_of(state.optimizer, parameter):
            own.setdefault(key, torch.zeros_like(parameter))
        if "exp_avg" in own:
            own.setdefault("step", torch.zeros((), device=state.device))
    places, given = _tensors(state), dict(snapshot.tensors)
    step, sums = snapshot.values["step"], given.pop("sums", torch.empty(0))
    if sums.shape[1:] != (2,) or sums.dtype != torch.float32 or len(sums) > step:
        raise ValueError("it lacks the sums of the epoch in progress")
    if differing := sorted(places.keys() ^ given.keys()):
        word = "lacks" if differing[0] in places else "has an unknown"
        raise ValueError(f"it {word} {differing[0]}")
    for name, place in places.items():
        if given[name].shape != place.shape or given[name].dtype != place.dtype:
            raise ValueError(f"{name} is of another shape or type")
        place.copy_(given[name])
    state.scaler.load_state_dict(snapshot.values["scaler"])
    state.step, state.seconds = step, snapshot.values["seconds"]
    state.elapsed = snapshot.values["elapsed"]
    # The main process continues the sums of all, so that they count once.
    state.sums = (sums if state.session.is_main else torch.zeros_like(sums)).to(state.device)
    state.sums_from = step - len(sums)


def _tensors(state: TrainState) -> dict[str, Tensor]:
    """Return the state's own tensors by name, except for the sums."""
    tensors = {f"network.{name}": one for name, one in state.network.state_dict().items()}
    if state.average:
        weights = state.average.network.state_dict()
        tensors |= {f"averaged.{name}": one for name, one in weights.items()}
    for name, parameter in state.network.named_parameters():
        averages = state.optimizer.state[parameter].items()
        tensors |= {f"optimizer.{name}.{key}": tensor for key, tensor in averages}
    return tensors
