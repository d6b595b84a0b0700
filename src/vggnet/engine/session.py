"""One process or many: who this one is, and sums over all of them.

torchrun tells each process its place by environment variables (RANK, LOCAL_RANK,
WORLD_SIZE); without them there is one process, and every operation here is a no-op.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from vggnet.errors import ConfigError


@dataclass(frozen=True)
class Session:
    """This process's place among those that train together."""

    rank: int = 0
    local_rank: int = 0
    world_size: int = 1
    local_world_size: int = 1
    """Processes on this machine."""

    @property
    def is_main(self) -> bool:
        """Whether this is the process that prints and writes."""
        return self.rank == 0

    def replicate(self, network: nn.Module, device: torch.device) -> nn.Module:
        """Return a module that averages gradients over all processes."""
        if self.world_size == 1:
            return network
        return DistributedDataParallel(
            network, device_ids=[device.index] if device.type == "cuda" else None
        )

    def share(self, value: str) -> str:
        """Return the main process's `value` on every process."""
        if self.world_size == 1:
            return value
        box = [value]
        distributed.broadcast_object_list(box)
        return box[0]

    def sum_(self, tensor: Tensor) -> Tensor:
        """Add `tensor` up over all processes, in place, and return it."""
        if self.world_size > 1:
            distributed.all_reduce(tensor)
        return tensor


@contextmanager
def open_session(device_type: str) -> Iterator[Session]:
    """Join the process group that torchrun describes, if it does.

    Args:
        device_type: "cuda" communicates by nccl, every other by gloo.

    Raises:
        ConfigError: The environment variables contradict each other.
    """
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
    try:
        rank, local_rank, world_size, local_world_size = (
            int(os.environ.get(name, default)) for name, default in zip(names, "0011", strict=True)
        )
    except ValueError:
        raise ConfigError(f"{', '.join(names)} must be whole numbers, as torchrun sets") from None
    if not 0 <= rank < world_size:
        raise ConfigError(f"RANK {rank} does not lie below WORLD_SIZE {world_size}")
    session = Session(rank, local_rank, world_size, local_world_size)
    if world_size == 1:
        yield session
        return
    distributed.init_process_group("nccl" if device_type == "cuda" else "gloo")
    try:
        yield session
    finally:
        distributed.destroy_process_group()
