"""Who may send requests: names of the server, origins of pages, proxies, and a token."""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections.abc import Iterable
from ipaddress import ip_address, ip_network
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import Scope

from vggnet.errors import ConfigError
from vggnet.serve.http_errors import HttpError

_WITHOUT_TOKEN = ("/healthz", "/readyz", "/v2/health/live", "/v2/health/ready")
_PREFIX = re.compile(r"(/[\w.~-]+)*", re.ASCII)
_ORIGIN = re.compile(r"https?://[^/?#@\s]+", re.ASCII)
_CHALLENGE = 'Basic realm="vggnet"'  # lets browsers ask for the token

RawHeaders = list[tuple[bytes, bytes]]


class Access:
    """The rules of one server.

    Args:
        host: Name or address that the server listens on.
        names: More names that clients may put into the Host header.
        origins: Other sites whose pages may send requests, such as "http://localhost:3000".
        proxies: Addresses or networks of proxies whose X-Forwarded headers are trusted.
        root_path: Path under which a proxy publishes the server, such as "/digits".
        token: Required in all requests but those for health.

    Raises:
        ConfigError: An argument is not valid.
    """

    def __init__(
        self,
        host: str,
        *,
        names: Iterable[str] = (),
        origins: Iterable[str] = (),
        proxies: Iterable[str] = (),
        root_path: str = "",
        token: str | None = None,
    ) -> None:
        self._names = {"localhost", host.lower(), *(name.lower() for name in names)}
        self._any_address = not is_loopback(host)
        self._origins = frozenset(map(_check_origin, origins))
        try:
            self._proxies = [ip_network(proxy) for proxy in proxies]
        except ValueError as error:
            raise ConfigError(f"--trusted-proxy: {error}") from None
        if not _PREFIX.fullmatch(root_path):
            raise ConfigError(f"--root-path {root_path}: it must look like /digits")
        if token is not None and not (token.isascii() and token.isprintable() and token.strip()):
            raise ConfigError("--token: it is empty, or contains other than ASCII characters")
        self._root_path, self._token = root_path, token

    def admit(self, scope: Scope) -> RawHeaders:
        """Check the Host and Origin headers; first apply what a trusted proxy says.

        Args:
            scope: Of the request. Its Host header, scheme and root path become those that the
                client used.

        Returns:
            Headers for the response that let a page of an allowed origin read it.

        Raises:
            HttpError: The request is not meant for this server, or not allowed.
        """
        self._apply_proxy(scope)
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if len(headers.getlist("host")) != 1 or not self._includes(host):
            raise HttpError(
                400,
                f"Host {host[:80]!r} is not allowed; to allow this name, start the server with "
                f"--allow-host NAME",
            )
        origins = headers.getlist("origin")
        if all(origin in (f"http://{host}", f"https://{host}") for origin in origins):
            return []
        if len(origins) == 1 and origins[0] in self._origins:
            allowed = origins[0].encode()
            return [(b"access-control-allow-origin", allowed), (b"vary", b"origin")]
        raise HttpError(
            403,
            f"pages of {origins[0][:80]!r} may not send requests to {host[:80]!r}; to allow them, "
            f"start the server with --allow-origin {origins[0][:80]}, or behind a proxy that "
            f"sends X-Forwarded-Host with --trusted-proxy ADDRESS",
        )

    def check_token(self, scope: Scope) -> None:
        """Check the token, where one is required.

        A bearer token, or the password of HTTP's basic authentication: browsers ask for that
        one by themselves.

        Raises:
            HttpError: It is missing or wrong.
        """
        path = scope["path"].removeprefix(scope["root_path"])
        if self._token is None or path in _WITHOUT_TOKEN:
            return
        given = _read_token(Headers(scope=scope).get("authorization", ""))
        if not hmac.compare_digest(given, self._token.encode()):
            raise HttpError(
                401,
                "this server requires its token: send the header 'Authorization: Bearer TOKEN'",
                **{"www-authenticate": _CHALLENGE},
            )

    def _apply_proxy(self, scope: Scope) -> None:
        client, headers = scope.get("client"), Headers(scope=scope)
        scope["root_path"] = self._root_path
        if client and self._is_proxy(client[0]):
            # The last of several values was added by the nearest proxy.
            host, scheme, prefix = (
                headers.get(f"x-forwarded-{name}", "").rpartition(",")[2].strip()
                for name in ("host", "proto", "prefix")
            )
            if host:
                kept = [pair for pair in scope["headers"] if pair[0] != b"host"]
                scope["headers"] = [*kept, (b"host", host.encode("latin-1"))]
            if scheme in ("http", "https"):
                scope["scheme"] = scheme
            if _PREFIX.fullmatch(prefix.rstrip("/")):
                scope["root_path"] = prefix.rstrip("/") or self._root_path
        # ASGI's path includes the root path, whether or not the proxy cut it off.
        if not f"{scope['path']}/".startswith(f"{scope['root_path']}/"):
            scope["path"] = scope["root_path"] + scope["path"]

    def _is_proxy(self, address: str) -> bool:
        return _is_address(address) and any(ip_address(address) in one for one in self._proxies)

    def _includes(self, authority: str) -> bool:
        """Whether a Host header, `name` or `name:port`, names this server.

        A foreign page can let its own name resolve to this machine to read what only this
        machine may (DNS rebinding); the Host header shows that name. An address cannot be used
        in this way, so a server that listens to the network accepts any.
        """
        try:
            parts = urlsplit(f"//{authority}")
            name = parts.hostname
            _ = parts.port
        except ValueError:
            return False
        if not name or parts.username is not None or parts.netloc != authority:
            return False
        return name in self._names or is_loopback(name) or (self._any_address and _is_address(name))


def is_loopback(host: str) -> bool:
    """Whether a name or address can be reached from this machine only."""
    return host == "localhost" or (_is_address(host) and ip_address(host).is_loopback)


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _check_origin(origin: str) -> str:
    if not _ORIGIN.fullmatch(origin):
        raise ConfigError(
            f"--allow-origin {origin}: give scheme, host and port as in http://localhost:3000"
        )
    return origin


def _read_token(authorization: str) -> bytes:
    """Return the token of an Authorization header."""
    scheme, _, value = authorization.partition(" ")
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).partition(b":")[2]
        except binascii.Error:
            return b""
    return value.strip().encode() if scheme.lower() == "bearer" else b""
