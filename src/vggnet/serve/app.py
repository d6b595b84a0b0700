"""The routes of the server."""

from __future__ import annotations

import gc
import json
import shlex
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel

from vggnet import __version__
from vggnet.errors import ConfigError
from vggnet.serve.access import Access
from vggnet.serve.guard import Guard
from vggnet.serve.http_errors import HttpError, add_error_handlers, describe_errors
from vggnet.serve.inference_protocol import build_router, find_model
from vggnet.serve.intake import FORM
from vggnet.serve.metrics import Measured
from vggnet.serve.pixels import InputError
from vggnet.serve.service import Answer, Evidence, Model, Service

IMAGE_TYPES = ("image/png", "image/jpeg", "image/webp", "image/bmp", "image/gif", "image/tiff")

_GENERAL_TYPES = ("", "application/octet-stream", "application/x-www-form-urlencoded", FORM)
"""What clients send that do not know, or do not say, what they send. The second one is curl's."""

_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
"""Of the files that the page loads."""


class Status(BaseModel):
    """State of the server."""

    status: str


class ModelDescription(BaseModel):
    """A model that the server offers."""

    name: str
    classes: list[str]
    image_shape: tuple[int, int, int]
    """Channels, height and width."""


def create_app(service: Service, access: Access) -> FastAPI:
    """Return the application of a service.

    Args:
        service: What computes; started and ended with the application.
        access: Who may send requests.

    Raises:
        ConfigError: The list of the models would exceed the limit of a response.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        # Both would stop the event loop during requests: the first description for 0.1 s, and a
        # full garbage collection, which visits every object of torch's modules, for 0.2 s.
        app.openapi()
        async with service:
            gc.collect()
            gc.freeze()
            yield

    app = FastAPI(
        title="vggnet",
        version=__version__,
        description="Images in, classes and probabilities out.",
        lifespan=lifespan,
        docs_url=None,  # both would load scripts from other sites
        redoc_url=None,
        openapi_url=None,
    )

    @lru_cache(maxsize=8)
    def describe(root_path: str) -> bytes:
        servers = {"servers": [{"url": root_path}]} if root_path else {}
        return json.dumps({**app.openapi(), **servers}).encode()

    @app.get("/openapi.json", include_in_schema=False)
    async def description(request: Request) -> Response:
        # FastAPI's own would encode it for each request, in which time no other is answered.
        content = describe(request.scope["root_path"].rstrip("/"))
        return Response(content, media_type="application/json")

    add_error_handlers(app, service.limits)
    app.include_router(_models(service))
    app.include_router(_predictions(service))
    app.include_router(_state(service))
    app.include_router(build_router(service))
    app.include_router(_page())
    app.add_middleware(
        Guard,
        access=access,
        limits=service.limits,
        metrics=service.metrics,
        closing=lambda: service.closing,
    )
    app.add_middleware(Measured, metrics=service.metrics)
    return app


def _models(service: Service) -> APIRouter:
    router, listed = APIRouter(), _list_models(service)

    @router.get("/models", response_model=list[ModelDescription])
    async def models() -> Response:
        """List the models, the default one first."""
        return Response(listed, media_type="application/json")

    return router


def _predictions(service: Service) -> APIRouter:
    router = APIRouter()
    find: Any = Depends(find_model(service))
    statuses = (400, 401, 403, 404, 408, 413, 415, 422, 500, 503)
    options: dict[str, Any] = {
        "response_model": Answer,
        "openapi_extra": {"requestBody": _describe_body(service.default.image_shape)},
        "responses": describe_errors(*statuses),
    }

    @router.post("/predict", **options)
    async def predict(request: Request) -> Response:
        """Classify images with the default model.

        An image file may have any size; it is prepared as the training images were. The body
        is the file itself, a form with one or several files, or JSON with the file in base64.

        Arrays of pixels in JSON must have the size of the network's input, with light strokes on
        black from 0 to 255.
        """
        return await _answer(service.default, request, service.predict)

    @router.post("/models/{model}/predict", **options)
    async def predict_with(request: Request, model: Model = find) -> Response:
        """Classify images with a model, as /predict does."""
        return await _answer(model, request, service.predict)

    explained: dict[str, Any] = {**options, "response_model": Evidence}

    @router.post("/explain", **explained)
    async def explain(request: Request) -> Response:
        """Show where in one image the evidence for the default model's prediction lies.

        The body is one image, as for /predict.
        """
        return await _answer(service.default, request, service.explain)

    @router.post("/models/{model}/explain", **explained)
    async def explain_with(request: Request, model: Model = find) -> Response:
        """Show where in one image the evidence for a model's prediction lies, as /explain does."""
        return await _answer(model, request, service.explain)

    return router


async def _answer(
    model: Model, request: Request, ask: Callable[[Model, bytes, str], Awaitable[BaseModel]]
) -> Response:
    """Pass the body of a request on, and return the response.

    Raises:
        HttpError: The content type is not one that is read, or the body is not what it says.
    """
    content_type = request.headers.get("content-type", "")
    kind = content_type.partition(";")[0].strip().lower()
    if not (kind.startswith("image/") or kind.endswith("json") or kind in _GENERAL_TYPES):
        detail = f"{kind[:80]!r} is not a type of an image or of JSON"
        raise HttpError(415, f"{detail}; {_give_example(request)}")
    try:
        found = await ask(model, await request.body(), content_type)
    except InputError as error:
        example = f"; {_give_example(request)}" if error.hint else ""
        raise HttpError(422, f"{error}{example}") from None
    return Response(found.model_dump_json(by_alias=True), media_type="application/json")


def _list_models(service: Service) -> bytes:
    """Return what `/models` answers; all class names are in it."""
    listed = json.dumps(
        [
            {"name": model.name, "classes": model.classes, "image_shape": model.image_shape}
            for model in service.models.values()
        ]
    ).encode()
    most = service.limits.response_bytes
    if len(listed) > most:
        raise ConfigError(
            f"cannot serve {len(service.models):,} models at once: their list with all class names "
            f"has {len(listed):,} bytes, and a response {most:,} at most; serve fewer"
        )
    return listed


def _give_example(request: Request) -> str:
    """Return a command that sends an image to the address that the client used."""
    token = " -H 'Authorization: Bearer TOKEN'" * ("authorization" in request.headers)
    url = request.url.replace(query="")
    return f"for example: curl{token} -F file=@image.png {shlex.quote(str(url))}"


def _describe_body(image_shape: tuple[int, int, int]) -> dict[str, Any]:
    """Describe what `/predict` accepts, for OpenAPI."""
    channels, height, width = image_shape
    image: dict[str, Any] = {"type": "integer", "minimum": 0, "maximum": 255}
    for length in (width, height, *([channels] if channels > 1 else [])):
        image = {"type": "array", "items": image, "minItems": length, "maxItems": length}
    base64 = {"type": "string", "contentEncoding": "base64"}
    several = [{"type": "array", "items": one, "minItems": 1} for one in (image, base64)]
    images = {"oneOf": [image, base64, *several]}
    json = {
        "type": "object",
        "anyOf": [{"required": ["images"]}, {"required": ["image"]}],
        "properties": {"images": images, "image": images},
    }
    file = {"type": "string", "format": "binary"}
    files = {"type": "array", "items": file, "minItems": 1}
    form = {"type": "object", "required": ["file"], "properties": {"file": files}}
    return {
        "required": True,
        "content": {
            **{kind: {"schema": file} for kind in (*IMAGE_TYPES, "application/octet-stream")},
            FORM: {"schema": form},
            "application/json": {"schema": json},
        },
    }


def _state(service: Service) -> APIRouter:
    router = APIRouter()

    @router.get("/healthz")
    async def healthz() -> Status:
        """Say that the server runs."""
        return Status(status="running")

    @router.get("/readyz", responses={503: {"model": Status}})
    async def readyz(response: Response) -> Status:
        """Say whether the server accepts requests."""
        response.status_code = 503 if service.closing else 200
        return Status(status="closing" if service.closing else "ready")

    @router.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """Return the counters in Prometheus' text format."""
        return Response(service.metrics.render(), media_type=CONTENT_TYPE_LATEST)

    return router


def _page() -> APIRouter:
    router = APIRouter(include_in_schema=False)
    folder = files("vggnet.page")

    def add(path: str, content: bytes, kind: str) -> None:
        @router.get(f"/{path}")
        async def part() -> Response:
            return Response(content, media_type=kind)

    add("", folder.joinpath("index.html").read_bytes(), "text/html")
    for file in folder.iterdir():
        if kind := _TYPES.get(Path(file.name).suffix):
            add(file.name, file.read_bytes(), kind)
    return router
