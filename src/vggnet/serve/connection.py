"""uvicorn's HTTP/1.1 connection with deadlines, and a limit on the number of connections."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from vggnet.serve.limits import Limits

LOG = logging.getLogger("vggnet.serve")

_RESERVE = 64
"""File descriptors for all but connections: workers, models, and those being accepted."""

ACCEPTED_AT_ONCE = 16
"""Connections that the event loop accepts before it looks at the first; see `_RESERVE`."""

_READ_BYTES = 4_096
"""Bytes of a connection that are read and parsed at a time. asyncio's own 256 KiB would stop all
others for 0.1 s if they are headers, and for 0.2 s if they are chunks of one byte."""

MOST_CHUNKS = 4_000
"""Chunks of a body. More: 400."""

_CHUNKS_AT_ONCE = 32
"""Chunks of a connection that are parsed before others have their turn. 4 KiB can hold 680 of one
byte: without this limit, `/healthz` took up to 156 ms in 99 % of the requests under attack, with it
56 (`benchmarks/stress/hostile_requests.py`, 5,100 requests each, two cores)."""

_PIPELINED_SECONDS = 0.05
"""Pause before a request that its client sent without waiting for the last response; browsers and
HTTP libraries do wait. Ten clients that send 200 such requests at a time kept the event loop busy:
`/healthz` took up to 54 ms in 99 % of the requests under attack, and takes 34 with the pause."""

_TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class ConnectionLimit:
    """How many connections may be open.

    Args:
        most: The limit, if the process may open enough files.
    """

    def __init__(self, most: int) -> None:
        self.most = min(most, _free_descriptors() - _RESERVE)
        self._logged = float("-inf")

    def log(self) -> None:
        """Say that a connection was closed; once a minute."""
        if time.monotonic() > self._logged + 60:
            self._logged = time.monotonic()
            LOG.warning("%d connections are open, the limit: closing new ones", self.most)


def _free_descriptors() -> int:
    """Return how many more files this process may open."""
    if sys.platform == "win32":
        return 1024
    try:
        import resource

        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return limit - len(list(Path("/proc/self/fd").iterdir()))
    except (ImportError, OSError):
        return 1024


class Parser(h11.Connection):
    """h11's parser, with a limit on the number of chunks, and pauses for the sake of others.

    Args:
        pause: Called with seconds after which to call `go_on`; until then there are no events.
            This happens after `_CHUNKS_AT_ONCE`, and before each pipelined request.
    """

    def __init__(self, pause: Callable[[float], object]) -> None:
        super().__init__(h11.SERVER)
        self._pause = pause
        self._chunks = 0
        self._left = _CHUNKS_AT_ONCE

    def go_on(self) -> None:
        """Return events again."""
        self._left = _CHUNKS_AT_ONCE

    def start_next_cycle(self) -> None:
        """Expect the next request; if some of it is already here, after a pause."""
        super().start_next_cycle()
        if self.trailing_data[0]:
            self._left = 0
            self._pause(_PIPELINED_SECONDS)

    def next_event(self) -> Any:
        """Return the next event, as h11 does."""
        if not self._left:
            return h11.NEED_DATA
        event = super().next_event()
        if isinstance(event, h11.Data):
            self._left -= 1
            if not self._left:
                self._pause(0)
            self._chunks += 1
            if self._chunks > MOST_CHUNKS:
                raise h11.RemoteProtocolError("too many chunks")
        elif isinstance(event, h11.Request):
            self._chunks = 0
        return event


class Connection(H11Protocol):
    """A connection whose client must send headers and take responses in time."""

    limits: Limits
    connection_limit: ConnectionLimit

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.conn = self._parser = Parser(self._pause)
        self._reading: asyncio.TimerHandle | None = None
        self._writing: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the deadline of the first request, or close a connection too many."""
        super().connection_made(transport)
        transport.max_size = _READ_BYTES  # type: ignore[attr-defined]
        if len(self.connections) > self.connection_limit.most:
            self.connection_limit.log()
            transport.abort()
        else:
            self._expect_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """End the deadlines."""
        super().connection_lost(exc)
        _cancel(self._reading, self._writing)

    def data_received(self, data: bytes) -> None:
        """Let the deadline run from the first byte of a request to the last of its headers."""
        super().data_received(data)
        self._watch_headers()

    def _pause(self, seconds: float) -> None:
        self.flow.pause_reading()
        self.loop.call_later(seconds, self._go_on)

    def _go_on(self) -> None:
        """Parse what was received before the pause, and read on."""
        self._parser.go_on()
        if not self.transport.is_closing():
            self.flow.resume_reading()
            self.handle_events()
            self._watch_headers()

    def _watch_headers(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            _cancel(self._reading)
            self._reading = None
        elif self._reading is None:
            self._expect_headers()

    def pause_writing(self) -> None:
        """Start the deadline of a response: its client takes it too slowly."""
        super().pause_writing()
        self._writing = self.loop.call_later(self.limits.send_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """End that deadline."""
        super().resume_writing()
        _cancel(self._writing)

    def _expect_headers(self) -> None:
        self._reading = self.loop.call_later(self.limits.header_seconds, self._give_up)

    def _give_up(self) -> None:
        if not self.transport.is_closing():
            self.transport.write(_TOO_SLOW)
            self.transport.close()


def build_connection(limits: Limits) -> type[Connection]:
    """Return the class of one server's connections, of which uvicorn makes the instances."""

    class Limited(Connection):
        pass

    Limited.limits, Limited.connection_limit = limits, ConnectionLimit(limits.connections)
    return Limited


def _cancel(*timers: asyncio.TimerHandle | None) -> None:
    for timer in timers:
        if timer is not None:
            timer.cancel()
