"""Run the application on uvicorn until a signal asks it to stop."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from collections.abc import Callable, Iterable

import uvicorn

from vggnet.errors import ServeError
from vggnet.inference.predict import Classifier
from vggnet.serve.app import create_app
from vggnet.serve.guard import HostNames
from vggnet.serve.limits import Limits
from vggnet.serve.service import Service

_NEWCOMERS = 2.0
"""Seconds, at most, that a connection has to send its first request once a signal came."""


class Server(uvicorn.Server):
    """uvicorn that lets its clients know before it stops, and loses no request.

    uvicorn itself ends connections on which nothing is going on, though a request may just
    be on its way. So first, for a moment, everything is answered as before but each answer
    closes its connection, and `/readyz` says 503.
    """

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop in three steps: say so, listen no more, finish what was accepted."""
        self._service.closing = True
        await asyncio.sleep(self._service.limits.notice_seconds)
        for listener in sockets or ():
            listener.listen(0)  # the kernel takes no more in, while the loop accepts who is there
        await asyncio.sleep(0.05)
        for server in self.servers:
            # As a timer it runs right after the loop has accepted all who are waiting; one whom
            # the kernel takes in after that is cut off.
            asyncio.get_running_loop().call_later(0, server.close)
        await self._hear_newcomers()
        await super().shutdown(sockets)

    async def _hear_newcomers(self) -> None:
        """Wait for the first request of connections that had none, for those are on their way."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + _NEWCOMERS
        while True:
            await asyncio.sleep(0.05)
            heard = (getattr(one, "cycle", None) for one in self.server_state.connections)
            if all(heard) or clock() > deadline:
                return


def serve(
    classifier: Classifier,
    *,
    host: str,
    port: int,
    threads: int,
    names: Iterable[str] = (),
    limits: Limits | None = None,
    announce: Callable[[str], None] = print,
) -> None:
    """Answer requests until SIGINT or SIGTERM, then finish what was accepted and exit with 0.

    Args:
        classifier: What answers.
        host: Name or address to listen on.
        port: 0 takes a free one.
        threads: CPU threads for one batch.
        names: More names by which clients may address the server.
        limits: What is taken on at most.
        announce: Given the address once it is listened on.

    Raises:
        ServeError: The address is not free or not this machine's.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit(0))  # uvicorn raises the signal again at its end
    service = Service(classifier, limits or Limits(), threads)
    with _listen(host, port) as listener:
        config = uvicorn.Config(
            create_app(service, HostNames(host, names)),
            ws="none",
            lifespan="on",
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=service.limits.drain_seconds,
        )
        announce(_address(host, listener))
        Server(config, service).run(sockets=[listener])


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=1024)
        # An answer goes out in two parts, and the kernel would keep the second back until the
        # client confirms the first: 44 ms for a request instead of 1. Connections inherit it.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ServeError(
            f"cannot listen on {host}, port {port}: {reason}; --host and --port choose another"
        ) from None


def _address(host: str, listener: socket.socket) -> str:
    port = listener.getsockname()[1]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
