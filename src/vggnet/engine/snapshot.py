"""The state of training as named tensors and plain values, and back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vggnet.engine.fit import TrainState
from vggnet.engine.optimizer import averages_of
from vggnet.model.vgg import VGG


@dataclass(frozen=True)
class Snapshot:
    """All that decides how training goes on, on the CPU.

    The learning rate, the order of the images and the random numbers of dropout are not
    in it: they are pure functions of the configuration and the step.
    """

    tensors: dict[str, Tensor]
    """`network.*`: parameters and buffers; `averaged.*`: likewise, where a running average of
    them is kept; `optimizer.*`: each parameter's averages; `sums`:
    those of the epoch under way, over all processes."""
    values: dict[str, Any]
    """`step`, `seconds` and `scaler`, ready for JSON."""


def take_snapshot(state: TrainState) -> Snapshot:
    """Read the state off the device. All processes must call it at the same step.

    On a CPU the tensors are the state's own where their layout allows it: write them
    down before the next step.

    Under several processes the sums are added up; all else is the same on each, but for
    the running statistics of batch norm: those of the main process count, since every
    step begins by copying them to the others.
    """
    sums = state.session.all_reduce(state.sums[: state.step - state.sums_from].clone())
    tensors = {"sums": sums}
    for part, network in _networks(state):
        for name, tensor in network.state_dict().items():
            tensors[f"{part}.{name}"] = tensor
    for name, parameter in state.network.named_parameters():
        for key, tensor in state.optimizer.state[parameter].items():
            tensors[f"optimizer.{name}.{key}"] = tensor
    return Snapshot(
        {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()},
        {"step": state.step, "seconds": state.seconds, "scaler": state.scaler.state_dict()},
    )


@torch.no_grad()
def restore_snapshot(state: TrainState, snapshot: Snapshot) -> None:
    """Put a snapshot's values in the place of the state's own, laid out as those are.

    Raises:
        KeyError: The snapshot lacks something.
        RuntimeError: It is of another network.
    """
    tensors = dict(snapshot.tensors)
    sums = tensors.pop("sums")
    for part, network in _networks(state):
        network.load_state_dict(_under(f"{part}.", tensors))
    averages = _under("optimizer.", tensors)
    for name, parameter in state.network.named_parameters():
        own = state.optimizer.state[parameter]
        for key in averages_of(state.optimizer, parameter):
            own[key] = torch.empty_like(parameter).copy_(averages[f"{name}.{key}"])
        if "exp_avg" in own:
            own["step"] = averages[f"{name}.step"].to(state.device)
    state.scaler.load_state_dict(snapshot.values["scaler"])
    state.step = snapshot.values["step"]
    state.seconds = snapshot.values["seconds"]
    # The sums of all processes go on in the main one's, so that they count once.
    state.sums = (sums if state.session.is_main else torch.zeros_like(sums)).to(state.device)
    state.sums_from = state.step - len(sums)


def _networks(state: TrainState) -> Iterator[tuple[str, VGG]]:
    yield "network", state.network
    if state.averaged:
        yield "averaged", state.averaged


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose names begin with a prefix, without it."""
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
