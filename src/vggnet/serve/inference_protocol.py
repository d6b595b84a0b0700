"""The Open Inference Protocol, version 2, over REST with tensors in JSON.

Source: https://github.com/kserve/open-inference-protocol
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from fastapi import APIRouter, Depends, Request, Response
from fastapi import Path as UrlPath
from pydantic import BaseModel

from vggnet import __version__
from vggnet.inference.predictions import Predictions
from vggnet.serve.http_errors import HttpError, ProtocolErrorBody, describe_errors
from vggnet.serve.intake import InferRequest
from vggnet.serve.pixels import InputError
from vggnet.serve.service import Model, Service

ALIAS = "vggnet"
"""Another name of the default model."""
VERSION = "1"


class Tensor(BaseModel):
    """A tensor of a response, or its description if it has no data."""

    name: str
    datatype: Literal["UINT8", "FP32", "BYTES"]
    shape: list[int]
    data: list[float] | list[str] | None = None


class InferResponse(BaseModel):
    """The response to an inference request."""

    model_name: str
    model_version: str = VERSION
    id: str | None = None
    outputs: list[Tensor]


class ServerMetadata(BaseModel):
    """Name and version of the server."""

    name: str = "vggnet"
    version: str = __version__
    extensions: list[str] = []


class ModelMetadata(BaseModel):
    """Inputs and outputs of a model."""

    name: str
    versions: list[str] = [VERSION]
    platform: str = "pytorch"
    inputs: list[Tensor]
    outputs: list[Tensor]


class Live(BaseModel):
    """Whether the server runs."""

    live: bool


class Ready(BaseModel):
    """Whether the server accepts requests."""

    ready: bool


class ModelReady(Ready):
    """Whether a model accepts requests."""

    name: str


def find_model(service: Service) -> Callable[[str], Model]:
    """Return a dependency that turns the name in a path into a model."""
    names = [ALIAS, *service.models]
    described: Any = UrlPath(json_schema_extra={"enum": list(dict.fromkeys(names))})

    def find(model: str = described) -> Model:
        found = service.models.get(model) or (service.default if model == ALIAS else None)
        if found is None:
            raise HttpError(404, f"no model {model[:80]!r}; there are {', '.join(names)}")
        return found

    return find


def build_router(service: Service) -> APIRouter:
    """Return the protocol's routes for a service."""
    router = APIRouter(prefix="/v2", tags=["Open Inference Protocol v2"])
    add_health(router, service)
    find: Any = Depends(find_model(service))
    unknown = describe_errors(404, model=ProtocolErrorBody)
    options: dict[str, Any] = {
        "response_model": InferResponse,
        "responses": describe_errors(
            400, 401, 403, 404, 408, 413, 422, 500, 503, model=ProtocolErrorBody
        ),
    }

    ready: dict[str, Any] = {
        "dependencies": [find],
        "responses": {**unknown, 503: {"model": ModelReady}},
    }

    @router.get("/models/{model}/ready", **ready)
    @router.get("/models/{model}/versions/1/ready", include_in_schema=False, **ready)
    async def model_ready(model: str, response: Response) -> ModelReady:
        """Say whether the model accepts requests."""
        response.status_code = 503 if service.closing else 200
        return ModelReady(name=model, ready=not service.closing)

    @router.get("/models/{model}", responses=unknown, response_model_exclude_none=True)
    @router.get("/models/{model}/versions/1", include_in_schema=False)
    async def model_metadata(model: str, found: Model = find) -> ModelMetadata:
        """Return names, types and shapes of the model's tensors."""
        return _describe_model(model, found)

    body = {"required": True, "content": {"application/json": {"schema": _describe_request()}}}

    @router.post("/models/{model}/infer", openapi_extra={"requestBody": body}, **options)
    @router.post("/models/{model}/versions/1/infer", include_in_schema=False, **options)
    async def infer(request: Request, model: str, found: Model = find) -> Response:
        """Classify images given as a tensor."""
        try:
            fields, predictions = await service.infer(found, await request.body())
        except InputError as error:
            raise HttpError(422, str(error)) from None
        tensors = _build_tensors(predictions)
        wanted = fields["outputs"] or list(tensors)
        answer = InferResponse(
            model_name=model, id=fields["id"], outputs=[tensors[name] for name in wanted]
        )
        return Response(answer.model_dump_json(exclude_none=True), media_type="application/json")

    return router


def _describe_model(name: str, model: Model) -> ModelMetadata:
    images = Tensor(name="images", datatype="UINT8", shape=[-1, *model.image_shape])
    probabilities = Tensor(name="probabilities", datatype="FP32", shape=[-1, len(model.classes)])
    classes = Tensor(name="classes", datatype="BYTES", shape=[-1])
    return ModelMetadata(name=name, inputs=[images], outputs=[probabilities, classes])


def _describe_request() -> dict[str, Any]:
    """Return the schema of a request, without references: OpenAPI has other places for them."""
    whole = InferRequest.model_json_schema()
    parts = whole.pop("$defs")

    def insert(value: Any) -> Any:
        if isinstance(value, list):
            return [insert(one) for one in value]
        if not isinstance(value, dict):
            return value
        if "$ref" in value:
            return insert(parts[value["$ref"].rpartition("/")[2]])
        return {key: insert(one) for key, one in value.items()}

    described: dict[str, Any] = insert(whole)
    return described


def add_health(router: APIRouter, service: Service) -> None:
    """Add the routes about the server itself."""

    @router.get("")
    async def server_metadata() -> ServerMetadata:
        """Return the name and version of the server."""
        return ServerMetadata()

    @router.get("/health/live")
    async def live() -> Live:
        """Say that the server runs."""
        return Live(live=True)

    @router.get("/health/ready", responses={503: {"model": Ready}})
    async def ready(response: Response) -> Ready:
        """Say whether the server accepts requests."""
        response.status_code = 503 if service.closing else 200
        return Ready(ready=not service.closing)


def _build_tensors(predictions: Predictions) -> dict[str, Tensor]:
    """Return the outputs for some images, by name."""
    count, num_classes = predictions.probabilities.shape
    return {
        "probabilities": Tensor(
            name="probabilities",
            datatype="FP32",
            shape=[count, num_classes],
            data=predictions.probabilities.ravel().tolist(),
        ),
        "classes": Tensor(
            name="classes",
            datatype="BYTES",
            shape=[count],
            data=predictions.classes,
        ),
    }
