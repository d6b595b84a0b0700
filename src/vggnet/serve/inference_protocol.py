"""The Open Inference Protocol, version 2, over REST with JSON tensors.

Source: https://github.com/kserve/open-inference-protocol
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel, ConfigDict, Field

from vggnet import __version__
from vggnet.serve.batching import Probabilities
from vggnet.serve.pixels import read_tensor
from vggnet.serve.refusals import ProtocolRefusal, refusals, require_json
from vggnet.serve.service import Service

NAME = "vggnet"
VERSION = "1"


class Tensor(BaseModel):
    """A tensor of an answer, or its description where it has no data."""

    name: str
    datatype: Literal["UINT8", "FP32", "BYTES"]
    shape: list[int]
    data: list[float] | list[str] | None = None


class InputTensor(BaseModel):
    """The images: nested as their shape says, or flat in row-major order."""

    model_config = ConfigDict(extra="ignore")

    name: Literal["images"]
    datatype: Literal["UINT8"]
    shape: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=4, max_length=4)]
    data: list[Any]


class RequestedOutput(BaseModel):
    """A tensor that the client asks for."""

    name: Literal["probabilities", "classes"]


class InferRequest(BaseModel):
    """What a client sends."""

    id: str | None = None
    inputs: Annotated[list[InputTensor], Field(min_length=1, max_length=1)]
    outputs: list[RequestedOutput] | None = None
    """Default: all."""


class InferResponse(BaseModel):
    """What it gets back."""

    model_name: str = NAME
    model_version: str = VERSION
    id: str | None = None
    outputs: list[Tensor]


class ServerMetadata(BaseModel):
    """Who answers."""

    name: str = NAME
    version: str = __version__
    extensions: list[str] = []


class ModelMetadata(BaseModel):
    """What the model takes and gives."""

    name: str = NAME
    versions: list[str] = [VERSION]
    platform: str = "pytorch"
    inputs: list[Tensor]
    outputs: list[Tensor]


class Live(BaseModel):
    """Whether the server runs."""

    live: bool


class Ready(BaseModel):
    """Whether it takes requests."""

    ready: bool


class ModelReady(Ready):
    """Whether a model takes requests."""

    name: str = NAME


_INFER: dict[str, Any] = {
    "response_model_exclude_none": True,
    "dependencies": [Depends(require_json)],
    "responses": refusals(400, 403, 408, 413, 415, 422, 503, model=ProtocolRefusal),
}


def build_router(service: Service) -> APIRouter:
    """Return the protocol's routes for one service."""
    router = APIRouter(prefix="/v2", tags=["Open Inference Protocol v2"])

    @router.get("")
    async def server_metadata() -> ServerMetadata:
        """Tell the server's name and version."""
        return ServerMetadata()

    @router.get("/health/live")
    async def live() -> Live:
        """Say that the server runs."""
        return Live(live=True)

    @router.get("/health/ready", responses={503: {"model": Ready}})
    async def ready(response: Response) -> Ready:
        """Say whether the server takes requests."""
        response.status_code = 503 if service.closing else 200
        return Ready(ready=not service.closing)

    @router.get(f"/models/{NAME}/ready", responses={503: {"model": ModelReady}})
    @router.get(f"/models/{NAME}/versions/{VERSION}/ready", include_in_schema=False)
    async def model_ready(response: Response) -> ModelReady:
        """Say whether the model takes requests."""
        response.status_code = 503 if service.closing else 200
        return ModelReady(ready=not service.closing)

    @router.get(f"/models/{NAME}", response_model_exclude_none=True)
    @router.get(f"/models/{NAME}/versions/{VERSION}", include_in_schema=False)
    async def model_metadata() -> ModelMetadata:
        """Tell names, types and shapes of the model's tensors."""
        images = Tensor(name="images", datatype="UINT8", shape=[-1, *service.image_shape])
        probabilities = Tensor(
            name="probabilities", datatype="FP32", shape=[-1, len(service.classes)]
        )
        classes = Tensor(name="classes", datatype="BYTES", shape=[-1])
        return ModelMetadata(inputs=[images], outputs=[probabilities, classes])

    @router.post(f"/models/{NAME}/infer", **_INFER)
    @router.post(f"/models/{NAME}/versions/{VERSION}/infer", include_in_schema=False, **_INFER)
    async def infer(request: InferRequest) -> InferResponse:
        """Classify images given as a tensor."""
        tensor = request.inputs[0]
        images = read_tensor(tensor.data, tensor.shape, service.image_shape)
        probabilities = await service.predict(images)
        wanted = [output.name for output in request.outputs or ()] or ["probabilities", "classes"]
        tensors = _tensors(probabilities, service.classes)
        return InferResponse(id=request.id, outputs=[tensors[name] for name in wanted])

    return router


def _tensors(probabilities: Probabilities, classes: tuple[str, ...]) -> dict[str, Tensor]:
    """Return the outputs for some images, by name."""
    count, num_classes = probabilities.shape
    return {
        "probabilities": Tensor(
            name="probabilities",
            datatype="FP32",
            shape=[count, num_classes],
            data=probabilities.ravel().tolist(),
        ),
        "classes": Tensor(
            name="classes",
            datatype="BYTES",
            shape=[count],
            data=[classes[index] for index in probabilities.argmax(axis=1)],
        ),
    }
