"""ASGI middleware at the door: whose request it is, how large, how slow; and the answer's headers.

The whole body is received here, within its limits, before the application starts: a slow
client occupies a coroutine and never a thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, MutableMapping
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from vggnet.serve.limits import Limits
from vggnet.serve.refusals import RefusedError, overloaded, refuse

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

_SECURITY = [
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cache-control", b"no-cache"),
]


class HostNames:
    """The names under which a server may be addressed.

    A page elsewhere can let its own name resolve to this machine and so read what only this
    machine may (DNS rebinding); the name in the Host header gives it away. An address is no
    such name, so a server that listens to the network takes any.

    Args:
        host: What the server listens on.
        names: More names, as of a reverse proxy.
    """

    def __init__(self, host: str, names: Iterable[str] = ()) -> None:
        self._names = {"localhost", host.lower(), *(name.lower() for name in names)}
        self._any_address = not _is_loopback(host)

    def include(self, authority: str) -> bool:
        """Say whether a Host header, `name` or `name:port`, names this server."""
        try:
            parts = urlsplit(f"//{authority}")
            name = parts.hostname
            _ = parts.port
        except ValueError:
            return False
        if not name or parts.username is not None or parts.netloc != authority:
            return False
        return (
            name in self._names or _is_loopback(name) or (self._any_address and _is_address(name))
        )


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _is_loopback(name: str) -> bool:
    return name == "localhost" or (_is_address(name) and ip_address(name).is_loopback)


class Guard:
    """Refuse what is not meant for this server or larger or slower than its limits.

    Args:
        app: What answers the rest.
        hosts: Names by which the server may be addressed.
        limits: Bounds of bodies.
        closing: Whether connections are to be closed after their answer.
    """

    def __init__(
        self, app: ASGIApp, hosts: HostNames, limits: Limits, closing: Callable[[], bool]
    ) -> None:
        self._app, self._hosts, self._limits, self._closing = app, hosts, limits, closing
        self._open = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on with its whole body, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def secured(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                close = [(b"connection", b"close")] if self._closing() else []
                message["headers"] = [*message.get("headers", []), *_SECURITY, *close]
            await send(message)

        headers = Headers(scope=scope)
        try:
            self._check_origin(headers)
            self._check_size(headers)
            if self._open >= self._limits.open_bodies:
                raise overloaded(self._limits)
        except RefusedError as error:
            await refuse(error, scope, secured)
            return
        self._open += 1
        try:
            await self._receive_and_pass_on(scope, receive, secured)
        finally:
            self._open -= 1

    def _check_origin(self, headers: Headers) -> None:
        host = headers.get("host", "")
        if len(headers.getlist("host")) != 1 or not self._hosts.include(host):
            raise RefusedError(
                400, f"this server is not called {host[:80]!r}; --allow-host adds a name"
            )
        for origin in headers.getlist("origin"):
            scheme, _, authority = origin.partition("://")
            if scheme not in ("http", "https") or authority.lower() != host.lower():
                raise RefusedError(403, "pages of another origin may not ask this server")

    def _check_size(self, headers: Headers) -> None:
        declared = headers.get("content-length", "0")
        if declared.isdecimal() and int(declared[:20]) > self._limits.body_bytes:
            raise self._too_large()

    def _too_large(self) -> RefusedError:
        return RefusedError(413, f"a body has at most {self._limits.body_bytes:,} bytes")

    async def _receive_and_pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with asyncio.timeout(self._limits.receive_seconds):
                body = await self._body(receive)
        except TimeoutError:
            seconds = self._limits.receive_seconds
            error = RefusedError(
                408, f"the body took longer than {seconds:g} seconds", connection="close"
            )
            await refuse(error, scope, send)
            return
        except RefusedError as error:
            await refuse(error, scope, send)
            return
        if body is None:
            return

        async def given() -> MutableMapping[str, Any]:
            nonlocal body
            if body is None:
                return await receive()
            message, body = {"type": "http.request", "body": body, "more_body": False}, None
            return message

        await self._app(scope, given, send)

    async def _body(self, receive: Receive) -> bytes | None:
        """Return the whole body, or None where the client left."""
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            body += message.get("body", b"")
            if len(body) > self._limits.body_bytes:
                raise self._too_large()
            if not message.get("more_body", False):
                return bytes(body)
