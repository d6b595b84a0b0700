"""One process or many: who this one is, sums over all of them, and decisions in common.

torchrun tells each process its place by environment variables (RANK, LOCAL_RANK,
WORLD_SIZE); without them there is one process, and every operation here is a no-op.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.elastic.multiprocessing.errors import get_error_handler
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from vggnet.errors import (
    ConfigError,
    ConnectionLostError,
    InterruptedTrainingError,
    RunFinishedError,
)

T = TypeVar("T")

TIMEOUT = 120.0
"""Seconds to wait for another process before it is taken for lost."""

_GATHERING = timedelta(minutes=10)
"""Time for all processes to come up, as torchrun's own rendezvous allows."""


_LAST_WORD = 2.0
"""Seconds that the others leave after the first one that fails, which prints its error: the
launcher gives on the exit code of whichever ends first, and it was theirs in 5 of 10 runs."""


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

    def broadcast_object(self, value: T) -> T:
        """Return the main process's `value` on every process, once it has come here."""
        if self.world_size == 1:
            return value
        box = [value]
        distributed.broadcast_object_list(box)
        return box[0]

    def barrier(self) -> None:
        """Wait until every process has come here."""
        self.all_reduce(torch.zeros(1))  # no barrier(), which wants a device of its own under nccl

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Put the main process's values in the place of every other's."""
        if self.world_size > 1:
            for tensor in tensors:
                distributed.broadcast(tensor, src=0)

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """Add `tensor` up over all processes, in place, and return it."""
        if self.world_size > 1:
            distributed.all_reduce(tensor)
        return tensor


class Agreement:
    """Decisions that all processes take at the same step.

    With several processes the wishes of one step are known at the next: they are summed
    up on the CPUs meanwhile, so that no process waits for another or for its device.
    """

    def __init__(self, session: Session) -> None:
        self._alone = session.world_size == 1
        self._under_way: tuple[distributed.Work, Tensor] | None = None

    def ask(self, *wishes: bool) -> tuple[bool, ...]:
        """Hand in this process's wishes; return which ones any process had, a step ago.

        Every process calls this after every step. A process alone gets its wishes back.
        """
        if self._alone:
            return wishes
        counts = torch.tensor(wishes, dtype=torch.int32)
        work = distributed.all_reduce(counts, async_op=True)
        assert work is not None
        granted = self.conclude() or (False,) * len(wishes)
        self._under_way = work, counts
        return granted

    def conclude(self) -> tuple[bool, ...] | None:
        """Wait for what is under way, and return it."""
        if self._under_way is None:
            return None
        work, counts = self._under_way
        self._under_way = None
        work.wait()
        return tuple(count > 0 for count in counts.tolist())


@contextmanager
def open_session(timeout: float = TIMEOUT) -> Iterator[Session]:
    """Join the process group that torchrun describes, if it does.

    Where one of several processes fails, the first to do so raises its error; the others,
    which lose their connection to it, leave in silence.

    Args:
        timeout: Seconds to wait for another process before it is taken for lost.

    Raises:
        ConfigError: The environment variables contradict each other, or one is missing.
        ConnectionLostError: Another process ended or cannot be reached.
    """
    session = _read_place()
    if session.world_size == 1:
        yield session
        return
    store = _join(session, timeout)
    try:
        yield session
    except (InterruptedTrainingError, RunFinishedError):
        if session.is_main:  # all have come here together
            raise
        raise SystemExit(0) from None
    except Exception as error:
        if not _fails_first(store):
            time.sleep(_LAST_WORD)
            raise SystemExit(1) from None
        get_error_handler().record_exception(error)
        if _is_lost_connection(error):
            raise _lost(error) from None
        raise
    finally:
        distributed.destroy_process_group()


def _join(session: Session, timeout: float) -> Store:
    """Meet the other processes; return the store that they share.

    Raises:
        ConfigError: An environment variable is missing or no address.
        ConnectionLostError: Another process cannot be reached.
    """
    # CPU tensors go by gloo, those of a GPU by nccl.
    nccl = torch.cuda.is_available() and distributed.is_nccl_available()
    try:
        store = _keys_of_this_attempt(next(rendezvous("env://", timeout=_GATHERING))[0])
        distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if nccl else "gloo",
            store=store,
            rank=session.rank,
            world_size=session.world_size,
            timeout=timedelta(seconds=timeout),
        )
    except ValueError as error:
        raise ConfigError(f"cannot find the other processes: {error}") from None
    except RuntimeError as error:
        if _is_lost_connection(error):
            raise _lost(error) from None
        raise
    return store


def _lost(error: Exception) -> ConnectionLostError:
    reason = str(error).split("\n")[0]
    return ConnectionLostError(
        f"another process of this training ended or could not be reached ({reason})"
    )


def _read_place() -> Session:
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
    try:
        rank, local_rank, world_size, local_world_size = (
            int(os.environ.get(name, default)) for name, default in zip(names, "0011", strict=True)
        )
    except ValueError:
        raise ConfigError(f"{', '.join(names)} must be whole numbers, as torchrun sets") from None
    if not 0 <= rank < world_size:
        raise ConfigError(f"RANK {rank} does not lie below WORLD_SIZE {world_size}")
    return Session(rank, local_rank, world_size, local_world_size)


def _keys_of_this_attempt(store: Store) -> Store:
    """Keep what this attempt writes apart from what the one before a restart left.

    torchrun's store outlives its workers; new ones that read the addresses of those that were
    killed wait for nobody. Agents of several machines count restarts differently, so there
    the keys are common.
    """
    if os.environ.get("GROUP_WORLD_SIZE") != "1":
        return store
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return PrefixStore(f"vggnet/attempt {attempt}", store)


def _fails_first(store: Store) -> bool:
    """Whether no other process failed before this one; true where they cannot be asked."""
    answers: list[bool] = []

    def ask() -> None:
        try:
            answers.append(store.add("vggnet/failures", 1) == 1)
        except RuntimeError:
            answers.append(True)

    # In a thread, as over a cable that was cut the answer never comes.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(timeout=5)
    return answers[0] if answers else True


def _is_lost_connection(error: Exception) -> bool:
    """Whether a process group reports that its peers are gone.

    gloo has no type for that, and one of its messages does not name it.
    """
    of_gloo = any(words in str(error) for words in ("gloo", "caused pair closure"))
    return isinstance(error, distributed.DistError) or (isinstance(error, RuntimeError) and of_gloo)
