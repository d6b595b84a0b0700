"""One process or several: the rank of this one, collective operations, common decisions.

torchrun describes each process in environment variables (RANK, LOCAL_RANK, WORLD_SIZE,
LOCAL_WORLD_SIZE). Without them there is one process, and every operation here does nothing.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar, cast

import torch
from torch import Tensor, distributed, nn
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.elastic.multiprocessing.errors import get_error_handler
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from vggnet.errors import (
    ConfigError,
    ConnectionLostError,
    DeviceError,
    InterruptedTrainingError,
    RunFinishedError,
)

T = TypeVar("T")

TIMEOUT = 120.0
"""Seconds to wait for another process before the connection counts as lost."""

_START_TIMEOUT = timedelta(minutes=10)
"""Time for all processes to start, as in torchrun's own rendezvous."""

_EXIT_DELAY = 2.0
"""Seconds after which the other processes exit when one has failed. The launcher reports the
exit code of the process that exits first; without the delay it was the wrong one in 5 of 10
runs."""


_PEER_LOST = ("ncclRemoteError", "remote process", "closed by remote peer", "Connection reset")
"""How NCCL says that another process is gone."""


@dataclass(frozen=True)
class Session:
    """This process among those that train together."""

    rank: int = 0
    local_rank: int = 0
    world_size: int = 1
    local_world_size: int = 1
    """Processes on this machine."""

    @property
    def is_main(self) -> bool:
        """Whether this process prints and writes."""
        return self.rank == 0

    def replicate(self, network: nn.Module, device: torch.device) -> nn.Module:
        """Return a module that averages gradients over all processes."""
        if self.world_size == 1:
            return network
        return DistributedDataParallel(
            network, device_ids=[device.index] if device.type == "cuda" else None
        )

    def broadcast_object(self, value: T | None) -> T:
        """Return the main process's `value` on every process; the others pass None."""
        box = [value]
        if self.world_size > 1:
            distributed.broadcast_object_list(box)
        return cast("T", box[0])

    def barrier(self) -> None:
        """Wait until every process has reached this call."""
        # Not distributed.barrier(), which needs a device under nccl.
        self.all_reduce(torch.zeros(1))

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Copy the main process's values into the tensors of all others."""
        if self.world_size > 1:
            for tensor in tensors:
                distributed.broadcast(tensor, src=0)

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """Add up `tensor` over all processes, in place, and return it."""
        if self.world_size > 1:
            distributed.all_reduce(tensor)
        return tensor


class Agreement:
    """Decisions that all processes take at the same step.

    With several processes, the requests of one step are known at the next: they are added up
    on the CPU meanwhile, so that no process waits for another or for its device.
    """

    def __init__(self, session: Session) -> None:
        self._alone = session.world_size == 1
        self._pending: tuple[distributed.Work, Tensor] | None = None

    def ask(self, *requests: bool) -> tuple[bool, ...]:
        """Submit this process's requests, and return which ones any process had a step ago.

        Every process calls this after every step. A single process gets its requests back.
        """
        if self._alone:
            return requests
        counts = torch.tensor(requests, dtype=torch.int32)
        work = distributed.all_reduce(counts, async_op=True)
        assert work is not None
        granted = self.conclude() or (False,) * len(requests)
        self._pending = work, counts
        return granted

    def conclude(self) -> tuple[bool, ...] | None:
        """Wait for the pending requests, and return them."""
        if self._pending is None:
            return None
        work, counts = self._pending
        self._pending = None
        work.wait()
        return tuple(count > 0 for count in counts.tolist())


@contextmanager
def open_session(timeout: float = TIMEOUT) -> Iterator[Session]:
    """Join the process group that torchrun describes, if any.

    If a process fails, the first one to do so raises its error. The others lose their
    connection to it, and exit silently.

    Args:
        timeout: Seconds to wait for another process before the connection counts as lost.

    Raises:
        ConfigError: An environment variable is missing or invalid.
        ConnectionLostError: Another process exited or cannot be reached.
    """
    session = _read_environment()
    if session.world_size == 1:
        yield session
        return
    store = _join(session, timeout)
    try:
        with explain_lost_connection():
            yield session
    except (InterruptedTrainingError, RunFinishedError):
        if session.is_main:  # all processes end like this
            raise
        raise SystemExit(0) from None
    except Exception as error:
        if not _fails_first(store):
            time.sleep(_EXIT_DELAY)
            raise SystemExit(1) from None
        get_error_handler().record_exception(error)
        raise
    finally:
        distributed.destroy_process_group()


@contextmanager
def explain_lost_connection(advice: str = "") -> Iterator[None]:
    """Turn the process group's errors about lost peers into a ConnectionLostError.

    Other errors of NCCL become a DeviceError. gloo has no exception type, and one of its
    messages does not name it.
    """
    try:
        yield
    except RuntimeError as error:
        of_gloo = any(words in str(error) for words in ("gloo", "caused pair closure"))
        if not of_gloo and not isinstance(error, distributed.DistError):
            raise
        reason = str(error).split("\n")[0]
        if "NCCL error" in str(error) and not any(words in str(error) for words in _PEER_LOST):
            raise DeviceError(f"NCCL failed ({reason}); NCCL_DEBUG=INFO shows why") from None
        message = f"another process of this training exited or cannot be reached ({reason})"
        raise ConnectionLostError(f"{message}. {advice}".rstrip(". ")) from None


@contextmanager
def _silence_stdout() -> Iterator[None]:
    """Drop what C++ code prints: gloo of torch 2.9 prints two lines, which --json must not have."""
    sys.stdout.flush()
    saved, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        os.dup2(saved, 1)
        os.close(saved)
        os.close(nowhere)


def _join(session: Session, timeout: float) -> Store:
    """Join the other processes, and return the store that they share.

    Raises:
        ConfigError: An environment variable is missing or not an address.
        ConnectionLostError: Another process cannot be reached.
    """
    # gloo transfers CPU tensors, nccl those of a GPU.
    nccl = torch.cuda.is_available() and distributed.is_nccl_available()
    if nccl and session.local_rank < torch.cuda.device_count():
        torch.cuda.set_device(session.local_rank)  # else all processes open a context on GPU 0
    try:
        with explain_lost_connection(), _silence_stdout():
            store = _own_keys(next(rendezvous("env://", timeout=_START_TIMEOUT))[0])
            distributed.init_process_group(
                "cpu:gloo,cuda:nccl" if nccl else "gloo",
                store=store,
                rank=session.rank,
                world_size=session.world_size,
                timeout=timedelta(seconds=timeout),
            )
    except ValueError as error:
        raise ConfigError(f"cannot find the other processes: {error}") from None
    return store


def _read_environment() -> Session:
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
    try:
        rank, local_rank, world_size, local_world_size = (
            int(os.environ.get(name, default)) for name, default in zip(names, "0011", strict=True)
        )
    except ValueError:
        raise ConfigError(f"{', '.join(names)} must be integers, as torchrun sets them") from None
    if not 0 <= rank < world_size:
        raise ConfigError(f"RANK {rank} is not below WORLD_SIZE {world_size}")
    return Session(rank, local_rank, world_size, local_world_size)


def _own_keys(store: Store) -> Store:
    """Separate the keys of this attempt from those of the attempt before a restart.

    torchrun's store outlives its workers, and new workers that read the addresses of killed
    ones would wait forever. Agents on several machines count restarts differently, so there
    the keys are shared.
    """
    if os.environ.get("GROUP_WORLD_SIZE") != "1":
        return store
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return PrefixStore(f"vggnet/attempt {attempt}", store)


def _fails_first(store: Store) -> bool:
    """Whether no other process failed before this one; True if the store does not answer."""
    answers: list[bool] = []

    def ask() -> None:
        try:
            answers.append(store.add("vggnet/failures", 1) == 1)
        except RuntimeError:
            answers.append(True)

    # In a thread: if the network is down, there is never an answer.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(timeout=5)
    return answers[0] if answers else True
