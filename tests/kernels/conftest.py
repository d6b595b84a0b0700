"""Shared by the kernels' tests: networks, new processes, and when to skip."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch

from vggnet.errors import KernelError

from .small import answer


@pytest.fixture(scope="session", autouse=True)
def _kernels() -> None:
    from vggnet.kernels.build import find_compiler
    from vggnet.kernels.loading import find_processor

    try:
        find_compiler()
        find_processor()
    except KernelError as error:
        pytest.skip(f"compiled kernels cannot be tested here: {error}")


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """Use one thread unless a test sets another number, and restore the number afterwards.

    On a busy machine a team waits for its slowest thread: the tests took twice as long with two.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def start() -> Callable[..., Callable[[], Any]]:
    """Start functions in new processes, which have imported the package but not used it.

    A server process imports it once, and forks for each call. `start(function, *arguments,
    cache=folder, CXX=command)` returns a function that waits for the result.
    """
    server = get_context("forkserver")
    server.set_forkserver_preload(["vggnet.kernels", "torch.nn.parallel", answer.__module__])

    def begin(
        function: Callable[..., Any], *arguments: object, cache: Path | None = None, **changes: str
    ) -> Callable[[], Any]:
        results, sender = server.Pipe(duplex=False)
        environment = {**os.environ, **({"VGGNET_CACHE_DIR": str(cache)} if cache else {})}
        process = server.Process(
            target=answer, args=(sender, {**environment, **changes}, function, arguments)
        )
        process.start()
        sender.close()

        def wait() -> Any:
            try:
                return results.recv()
            except EOFError:
                pytest.fail("the process ended with an error and without a result")
            finally:
                process.join(60)

        return wait

    return begin
