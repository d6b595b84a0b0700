"""ASGI middleware in front of the application: access, sizes, times, and headers of responses.

It receives the whole body, within its limits, before the application starts: a slow client
occupies a coroutine and never a thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from vggnet.serve.access import Access, RawHeaders
from vggnet.serve.http_errors import HttpError, overloaded, send_error, unexpected
from vggnet.serve.limits import Limits
from vggnet.serve.metrics import Metrics

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

_SECURITY: RawHeaders = [
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cache-control", b"no-cache"),
]

_PREFLIGHT: RawHeaders = [
    (b"access-control-allow-methods", b"GET, POST"),
    (b"access-control-allow-headers", b"authorization, content-type"),
    (b"access-control-max-age", b"600"),
]


class Guard:
    """Answers requests that are not allowed, or exceed a limit, with an error.

    Args:
        app: Answers all others.
        access: Who may send requests.
        limits: Of bodies.
        metrics: Counts errors of this program.
        closing: Whether connections are to be closed after their response.
    """

    def __init__(
        self,
        app: ASGIApp,
        access: Access,
        limits: Limits,
        metrics: Metrics,
        closing: Callable[[], bool],
    ) -> None:
        self._app, self._access, self._limits = app, access, limits
        self._metrics, self._closing = metrics, closing
        self._open_bodies = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; no exception leaves this method."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        extra: RawHeaders = [*_SECURITY]
        started = False

        async def secured(message: MutableMapping[str, Any]) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                close = [(b"connection", b"close")] if self._closing() else []
                message["headers"] = [*message.get("headers", []), *extra, *close]
            await send(message)

        try:
            extra += self._access.admit(scope)
            await self._answer(scope, receive, secured)
        except HttpError as error:
            await send_error(error, scope, secured)
        except Exception as error:
            problem = unexpected(error, scope, self._metrics)
            if not started:
                await send_error(problem, scope, secured)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        if scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
            await send({"type": "http.response.start", "status": 204, "headers": _PREFLIGHT})
            await send({"type": "http.response.body"})
            return
        self._access.check_token(scope)
        with self._count_body(headers):
            body = await self._receive(headers, receive)
            if body is None:
                return

            async def given() -> MutableMapping[str, Any]:
                nonlocal body
                if body is None:
                    return await receive()
                message, body = {"type": "http.request", "body": body, "more_body": False}, None
                return message

            await self._app(scope, given, send)

    @contextmanager
    def _count_body(self, headers: Headers) -> Iterator[None]:
        """Limit the requests with a body; those without one are always answered."""
        if headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers:
            yield
            return
        if self._open_bodies >= self._limits.open_bodies:
            raise overloaded(self._limits)
        self._open_bodies += 1
        try:
            yield
        finally:
            self._open_bodies -= 1

    async def _receive(self, headers: Headers, receive: Receive) -> bytes | None:
        """Return the whole body, or None if the client left.

        Raises:
            HttpError: It is too large or too slow.
        """
        declared = headers.get("content-length", "0")
        if declared.isdecimal() and int(declared[:20]) > self._limits.body_bytes:
            raise self._too_large()
        body = bytearray()
        try:
            async with asyncio.timeout(self._limits.receive_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    body += message.get("body", b"")
                    if len(body) > self._limits.body_bytes:
                        raise self._too_large()
                    if not message.get("more_body", False):
                        return bytes(body)
        except TimeoutError:
            seconds = self._limits.receive_seconds
            detail = f"receiving the body took longer than {seconds:g} seconds"
            raise HttpError(408, detail, connection="close") from None

    def _too_large(self) -> HttpError:
        return HttpError(413, f"the limit of a body is {self._limits.body_bytes:,} bytes")
