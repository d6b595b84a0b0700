"""The routes: what can be asked, and which part of the service answers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any

from fastapi import APIRouter, FastAPI, HTTPException, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel

from vggnet import __version__
from vggnet.serve.guard import Guard, HostNames
from vggnet.serve.inference_protocol import build_router
from vggnet.serve.metrics import Measured
from vggnet.serve.pixels import PixelsError, read_json, read_pixels
from vggnet.serve.refusals import add_refusals, media_type, refusals
from vggnet.serve.service import Answer, Service

IMAGE_TYPES = ("image/png", "image/jpeg", "image/webp", "image/bmp")

PAGE = {
    "": ("index.html", "text/html"),
    "page.css": ("page.css", "text/css"),
    "page.js": ("page.js", "text/javascript"),
    "pad.js": ("pad.js", "text/javascript"),
    "collection.js": ("collection.js", "text/javascript"),
    "zip.js": ("zip.js", "text/javascript"),
    "icon.svg": ("icon.svg", "image/svg+xml"),
}
"""Path to file and type: the page fetches nothing else."""


class Status(BaseModel):
    """How the server is."""

    status: str


def create_app(service: Service, hosts: HostNames) -> FastAPI:
    """Return the application that answers for a service.

    Args:
        service: What computes; started and ended with the application.
        hosts: Names by which the server may be addressed.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with service:
            yield

    app = FastAPI(
        title="vggnet",
        version=__version__,
        description="Images in, classes and probabilities out.",
        lifespan=lifespan,
        docs_url=None,  # both would load scripts from elsewhere
        redoc_url=None,
        openapi_url="/openapi.json",
    )
    add_refusals(app, service.limits)
    app.include_router(_predictions(service))
    app.include_router(_state(service))
    app.include_router(build_router(service))
    app.include_router(_page())
    app.add_middleware(Guard, hosts=hosts, limits=service.limits, closing=lambda: service.closing)
    app.add_middleware(Measured, metrics=service.metrics)
    return app


def _predictions(service: Service) -> APIRouter:
    router = APIRouter()

    @router.post(
        "/predict",
        openapi_extra={"requestBody": _describe_body(service.image_shape)},
        responses=refusals(400, 403, 408, 413, 415, 422, 503),
    )
    async def predict(request: Request) -> Answer:
        """Classify an image file of any size, or arrays of the network's own size.

        A file is prepared as the training data were: the ink is found, cropped, scaled and
        centred. Arrays are taken as they are: light strokes on black, 0 to 255.
        """
        kind = media_type(request)
        if kind in IMAGE_TYPES:
            return await service.answer_file(await request.body())
        if kind != "application/json":
            raise HTTPException(415, f"send {', '.join(IMAGE_TYPES)} or application/json")
        value = read_json(await request.body())
        if not isinstance(value, dict) or "images" not in value:
            raise PixelsError('send an object, {"images": [...]}')
        return await service.answer_pixels(read_pixels(value["images"], service.image_shape))

    return router


def _describe_body(image_shape: tuple[int, int, int]) -> dict[str, Any]:
    """Describe what `/predict` takes, for OpenAPI."""
    channels, height, width = image_shape
    image: dict[str, Any] = {"type": "integer", "minimum": 0, "maximum": 255}
    for length in (width, height, *([channels] if channels > 1 else [])):
        image = {"type": "array", "items": image, "minItems": length, "maxItems": length}
    several = {"type": "array", "items": image, "minItems": 1}
    arrays = {
        "type": "object",
        "required": ["images"],
        "properties": {"images": {"oneOf": [image, several]}},
    }
    file = {"schema": {"type": "string", "format": "binary"}}
    return {
        "required": True,
        "content": {**dict.fromkeys(IMAGE_TYPES, file), "application/json": {"schema": arrays}},
    }


def _state(service: Service) -> APIRouter:
    router = APIRouter()

    @router.get("/healthz")
    async def healthz() -> Status:
        """Say that the server runs."""
        return Status(status="running")

    @router.get("/readyz", responses={503: {"model": Status}})
    async def readyz(response: Response) -> Status:
        """Say whether the server takes requests."""
        response.status_code = 503 if service.closing else 200
        return Status(status="closing" if service.closing else "ready")

    @router.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """Tell the server's counters in Prometheus' text format."""
        return Response(service.metrics.render(), media_type=CONTENT_TYPE_LATEST)

    return router


def _page() -> APIRouter:
    router = APIRouter(include_in_schema=False)
    folder = files("vggnet.serve").joinpath("page")

    def add(path: str, content: bytes, kind: str) -> None:
        @router.get(f"/{path}")
        async def part() -> Response:
            return Response(content, media_type=kind)

    for path, (name, kind) in PAGE.items():
        add(path, folder.joinpath(name).read_bytes(), kind)
    return router
