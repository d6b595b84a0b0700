"""Answers to requests that are not granted: a status, a sentence, in JSON."""

from __future__ import annotations

import json
from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.types import Scope, Send

from vggnet.errors import OutOfMemoryError, VggnetError
from vggnet.serve.batching import OverloadedError
from vggnet.serve.limits import Limits
from vggnet.serve.pixels import PixelsError


class RefusedError(Exception):
    """A request that is answered with an error."""

    def __init__(self, status: int, detail: str, **headers: str) -> None:
        super().__init__(detail)
        self.status, self.detail, self.headers = status, detail, headers


class Refusal(BaseModel):
    """What was wrong, in a sentence."""

    detail: str


class ProtocolRefusal(BaseModel):
    """The same in the words of the Open Inference Protocol."""

    error: str


def refusals(*statuses: int, model: type[BaseModel] = Refusal) -> dict[int | str, dict[str, Any]]:
    """Describe a route's refusals for OpenAPI."""
    return {status: {"model": model} for status in statuses}


def overloaded(limits: Limits) -> RefusedError:
    """Return the refusal of a server that has enough to do."""
    wait = {"retry-after": str(limits.retry_seconds)}
    return RefusedError(503, "the server is busy; try again shortly", **wait)


def error_body(path: str, detail: str) -> bytes:
    """Return an error's JSON, in the words of the protocol that the path belongs to."""
    return json.dumps({"error" if path.startswith("/v2") else "detail": detail}).encode()


async def refuse(error: RefusedError, scope: Scope, send: Send) -> None:
    """Answer a request with an error, from middleware."""
    body = error_body(scope["path"], error.detail)
    headers = {"content-type": "application/json", "content-length": str(len(body))}
    raw = [(key.encode(), value.encode()) for key, value in (headers | error.headers).items()]
    await send({"type": "http.response.start", "status": error.status, "headers": raw})
    await send({"type": "http.response.body", "body": body})


def require_json(request: Request) -> None:
    """Refuse bodies of another type.

    Raises:
        HTTPException: 415.
    """
    if media_type(request) != "application/json":
        raise HTTPException(415, "the body must be application/json")


def media_type(request: Request) -> str:
    """Return the type of a request's body without its parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def add_refusals(app: FastAPI, limits: Limits) -> None:
    """Let an application answer errors in one sentence."""

    def answer(request: Request, error: RefusedError) -> Response:
        body = error_body(request.url.path, error.detail)
        return Response(body, error.status, error.headers, "application/json")

    @app.exception_handler(OverloadedError)
    async def busy(request: Request, error: OverloadedError) -> Response:
        return answer(request, overloaded(limits))

    @app.exception_handler(MemoryError)
    @app.exception_handler(OutOfMemoryError)
    async def exhausted(request: Request, error: Exception) -> Response:
        return answer(request, overloaded(limits))

    @app.exception_handler(VggnetError)
    @app.exception_handler(PixelsError)
    async def unreadable(request: Request, error: Exception) -> Response:
        return answer(request, RefusedError(422, str(error)))

    @app.exception_handler(StarletteHTTPException)
    async def refused(request: Request, error: StarletteHTTPException) -> Response:
        return answer(request, RefusedError(error.status_code, error.detail, **error.headers or {}))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        # Without the input, which may be large, or not a number that JSON knows.
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        return answer(request, RefusedError(422, f"{place}: {first['msg']}"))
