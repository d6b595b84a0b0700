"""Start several processes on this machine with torchrun's own launcher."""

from __future__ import annotations

import logging
import os
import signal
import sys
import uuid
from collections.abc import Sequence

import torch
from torch._C._distributed_c10d import TCPStore
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from vggnet.errors import DeviceError


def is_worker() -> bool:
    """Whether torchrun, or `launch`, started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def launch(arguments: Sequence[str], processes: int, max_restarts: int) -> None:
    """Run Python with `arguments` as several processes that train together.

    Signals are passed on to them. If one fails or is killed, all are restarted, up to
    `max_restarts` times. The first process that fails prints the error itself.

    Raises:
        DeviceError: This build of torch cannot start them.
        SystemExit: They failed, or a signal ended them.
    """
    _check_store()
    # It would log every process that ends, before our one-line error.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    for name in list(logging.root.manager.loggerDict):  # each has its own level
        if name.startswith("torch.distributed.elastic"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
    # A signal that this process was told to ignore, as by nohup, stays ignored.
    names = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT")
    signals = [one for one in names if signal.getsignal(signal.Signals[one]) != signal.SIG_IGN]
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=max_restarts,
        local_addr="localhost",
    )
    if hasattr(config, "signals_to_handle"):  # torch 2.9 always handles all four
        config.signals_to_handle = ",".join(signals)
    try:
        elastic_launch(config, sys.executable)(*arguments)
    except ChildFailedError as error:
        raise SystemExit(_explain(error)) from None
    except SignalException as stop:
        raise SystemExit(128 + stop.sigval) from None


def _check_store() -> None:
    """Check that this build of torch can host the store by which processes find each other.

    Some builds for Windows cannot, and torch's launcher hides the reason.
    """
    try:
        TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    except RuntimeError as error:
        if "libuv" in str(error):
            raise DeviceError(
                f"--nproc and --max-restarts need libuv, which torch {torch.__version__} was "
                "built without; train without them, in one process"
            ) from None


def _explain(error: ChildFailedError) -> int:
    """Return the first failure's exit code, and report a killed process, which cannot."""
    rank, first = error.get_first_failure()
    if first.exitcode >= 0:
        return first.exitcode
    if not any(_has_reported(failure) for failure in error.failures.values()):
        print(f"vggnet: process {rank} was killed by {first.signal_name()}", file=sys.stderr)
    return 128 - first.exitcode


def _has_reported(failure: ProcessFailure) -> bool:
    return os.path.isfile(failure.error_file)  # noqa: PTH113 (it is a str that may be "<N/A>")
