"""Run the application on uvicorn until a signal stops it."""

from __future__ import annotations

import asyncio
import ctypes
import faulthandler
import logging
import os
import signal
import socket
import struct
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import FrameType

import uvicorn

from vggnet.errors import ConfigError, ServeError
from vggnet.inference.predict import Classifier
from vggnet.inference.predictions import DEFAULT_REJECT
from vggnet.serve.access import Access
from vggnet.serve.app import create_app
from vggnet.serve.connection import ACCEPTED_AT_ONCE, build_connection
from vggnet.serve.limits import Limits
from vggnet.serve.service import Service

LOG = logging.getLogger("vggnet.serve")

_BACKLOG = 1024
"""Connections that the kernel holds until the server accepts them."""

_NEWCOMERS = 2.0
"""Seconds that a new connection has to send its first request after the signal to stop."""

_SO_ATTACH_FILTER = 26
"""Number of the option in Linux; the module `socket` lacks it."""

_DROP_SYN = b"".join(
    struct.pack("HBBI", *instruction)
    for instruction in (
        (0x30, 0, 0, 13),  # load the byte with the flags of the TCP header
        (0x54, 0, 0, 0x12),  # keep SYN and ACK
        (0x15, 0, 1, 0x02),  # SYN alone begins a connection:
        (0x06, 0, 0, 0),  # drop the packet
        (0x06, 0, 0, 0xFFFFFFFF),  # pass any other
    )
)
"""Program of a classic BPF filter (Linux, Documentation/networking/filter.rst)."""


class Server(uvicorn.Server):
    """uvicorn that announces its end and loses no request.

    uvicorn itself closes idle connections, although a request may be on its way. So first, for
    a moment, every request is answered, each response closes its connection, and `/readyz`
    says 503. A second signal ends the process at once.
    """

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin the shutdown, or end at the second signal."""
        if self.should_exit:
            self._service.workers.kill()
            os._exit(128 + sig)
        super().handle_exit(sig, frame)
        # Something may not end in time, such as the batch of a large network, or may block the
        # interpreter. This timer runs outside of it.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        faulthandler.dump_traceback_later(self._service.limits.end_seconds, exit=True, file=nowhere)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start; then let the kernel hold more connections than are accepted at once."""
        await super().startup(sockets)
        for listener in sockets or ():
            listener.listen(_BACKLOG)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop in three steps: announce it, stop listening, finish what was accepted."""
        self._service.closing = True
        await asyncio.sleep(self._service.limits.notice_seconds)
        for listener in sockets or ():
            _refuse_new_connections(listener)
        await asyncio.sleep(0.05)  # the loop accepts those that the kernel holds
        for server in self.servers:
            server.close()
        await self._hear_newcomers()
        await super().shutdown(sockets)

    async def _hear_newcomers(self) -> None:
        """Wait for the first request of new connections, for it is on its way."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + _NEWCOMERS
        while True:
            await asyncio.sleep(0.05)
            heard = (getattr(one, "cycle", None) for one in self.server_state.connections)
            if all(heard) or clock() > deadline:
                return


def serve(
    classifiers: Mapping[str, Classifier],
    access: Access,
    *,
    host: str,
    port: int,
    threads: int,
    limits: Limits | None = None,
    reject: float = DEFAULT_REJECT,
    announce: Callable[[str], None] = print,
) -> None:
    """Answer requests until SIGINT or SIGTERM, then finish what was accepted and exit with 0.

    Args:
        classifiers: By name; the first one is the default.
        access: Who may send requests.
        host: Name or address to listen on.
        port: 0 takes a free one.
        threads: CPU threads for one batch, and worker processes.
        limits: What is accepted.
        reject: Share of images like the training images to take for unlike ones.
        announce: Called with the address once the server listens.

    Raises:
        ConfigError: The host is empty.
        ServeError: The address is taken, or not one of this machine.
    """
    if not host.strip():
        raise ConfigError("--host is empty, which would listen on all interfaces: use 0.0.0.0")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit(0))  # uvicorn raises the signal again at its end
    service = Service(classifiers, limits or Limits(), threads, reject)
    with _listen(host, port) as listener:
        config = uvicorn.Config(
            create_app(service, access),
            http=build_connection(service.limits),
            ws="none",
            lifespan="on",
            log_level="error",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            backlog=ACCEPTED_AT_ONCE,
            timeout_graceful_shutdown=service.limits.drain_seconds,
        )
        announce(_address(host, listener))
        Server(config, service).run(sockets=[listener])


def _refuse_new_connections(listener: socket.socket) -> None:
    """Let the kernel take no more connections, and keep those that wait to be accepted.

    Closing the listener resets a connection that the kernel has taken since the last accept.
    So on Linux a filter drops the packets that begin a connection; their sender tries again a
    second later and finds the port closed. Elsewhere the kernel holds at most one.
    """
    listener.listen(0)
    if sys.platform == "linux":
        with suppress(OSError):
            program = ctypes.create_string_buffer(_DROP_SYN)
            count = len(_DROP_SYN) // 8
            listener.setsockopt(
                socket.SOL_SOCKET,
                _SO_ATTACH_FILTER,
                struct.pack("HP", count, ctypes.addressof(program)),
            )


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
        # A response goes out in two parts, and the kernel would hold the second one back until
        # the client confirms the first: 44 ms for a request instead of 1. Connections inherit it.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except (OSError, OverflowError, ValueError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).partition(" (while")[0]
        raise ServeError(
            f"cannot listen on {host!r}, port {port}: {reason}; choose another with --host or "
            f"--port"
        ) from None


def _address(host: str, listener: socket.socket) -> str:
    port = listener.getsockname()[1]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
