"""Several processes on this machine, by torchrun's own engine."""

from __future__ import annotations

import logging
import os
import sys
import uuid
from collections.abc import Sequence

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, elastic_launch


def is_worker() -> bool:
    """Whether torchrun, or `launch`, started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def launch(arguments: Sequence[str], processes: int, max_restarts: int) -> None:
    """Run this Python with some arguments as several processes that train together.

    Signals are passed on to them. When one is killed or fails, all are started again, at most
    `max_restarts` times. What went wrong, the first that failed has printed itself.

    Raises:
        SystemExit: They failed, or a signal ended them.
    """
    # Its account of each process that ends would stand before our one sentence.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    for name in list(logging.root.manager.loggerDict):  # each has a level of its own
        if name.startswith("torch.distributed.elastic"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
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
    try:
        elastic_launch(config, sys.executable)(*arguments)
    except ChildFailedError as error:
        raise SystemExit(_explain(error)) from None
    except SignalException as stop:
        raise SystemExit(128 + stop.sigval) from None


def _explain(error: ChildFailedError) -> int:
    """Return the first failure's exit code; of a killed process, which cannot speak, tell."""
    rank, first = error.get_first_failure()
    if first.exitcode >= 0:
        return first.exitcode
    if not any(_spoke(failure) for failure in error.failures.values()):
        print(f"vggnet: process {rank} was ended by {first.signal_name()}", file=sys.stderr)
    return 128 - first.exitcode


def _spoke(failure: ProcessFailure) -> bool:
    return os.path.isfile(failure.error_file)  # noqa: PTH113 (it is a str that may be "<N/A>")
