"""Errors as responses: a status and one sentence, in JSON."""

from __future__ import annotations

import json
import logging
import secrets
from typing import Any

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.types import Scope, Send

from vggnet.errors import OutOfMemoryError
from vggnet.serve.batching import OverloadedError
from vggnet.serve.limits import Limits
from vggnet.serve.metrics import Metrics
from vggnet.serve.worker import describe

LOG = logging.getLogger("vggnet.serve")


class HttpError(Exception):
    """A request that is answered with an error."""

    def __init__(self, status: int, detail: str, **headers: str) -> None:
        super().__init__(detail)
        self.status, self.detail, self.headers = status, detail, headers


class ErrorBody(BaseModel):
    """What is wrong, in one sentence."""

    detail: str


class ProtocolErrorBody(BaseModel):
    """The same, in the form of the Open Inference Protocol."""

    error: str


def describe_errors(
    *statuses: int, model: type[BaseModel] = ErrorBody
) -> dict[int | str, dict[str, Any]]:
    """Describe the error responses of a route for OpenAPI."""
    return {status: {"model": model} for status in statuses}


def overloaded(limits: Limits) -> HttpError:
    """Return the error of a server that has too much to do."""
    wait = {"retry-after": str(limits.retry_seconds)}
    return HttpError(503, "the server is busy; try again shortly", **wait)


def unexpected(error: BaseException, scope: Scope, metrics: Metrics) -> HttpError:
    """Log and count an error of this program, and return what the client is told of it."""
    number = secrets.token_hex(4)
    metrics.errors.inc()
    request = f"{scope['method'][:20]} {scope['path'][:100]}"
    LOG.error("error %s: %s: %s", number, ascii(request), describe(error))
    return HttpError(500, f"internal error {number}; the server's log has the same number")


async def send_error(error: HttpError, scope: Scope, send: Send) -> None:
    """Answer a request with an error, from middleware."""
    body = _body(scope["path"].removeprefix(scope.get("root_path", "")), error.detail)
    headers = {"content-type": "application/json", "content-length": str(len(body))}
    raw = [(key.encode(), value.encode()) for key, value in (headers | error.headers).items()]
    await send({"type": "http.response.start", "status": error.status, "headers": raw})
    await send({"type": "http.response.body", "body": body})


def _body(path: str, detail: str) -> bytes:
    return json.dumps({"error" if path.startswith("/v2") else "detail": detail}).encode()


def add_error_handlers(app: FastAPI, limits: Limits) -> None:
    """Let an application answer errors in one sentence."""

    def respond(request: Request, error: HttpError) -> Response:
        path = request.url.path.removeprefix(request.scope.get("root_path", ""))
        return Response(_body(path, error.detail), error.status, error.headers, "application/json")

    @app.exception_handler(HttpError)
    async def known(request: Request, error: HttpError) -> Response:
        return respond(request, error)

    @app.exception_handler(OverloadedError)
    @app.exception_handler(MemoryError)
    @app.exception_handler(OutOfMemoryError)
    async def busy(request: Request, error: Exception) -> Response:
        return respond(request, overloaded(limits))

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> Response:
        return respond(request, HttpError(error.status_code, error.detail, **error.headers or {}))
