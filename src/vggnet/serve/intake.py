"""Request bodies become images. Runs in a worker process, for bodies are not to be trusted.

`/predict` takes an image file, a form with files, or JSON with arrays of pixels or files in
base64. The Open Inference Protocol's `infer` takes JSON with a tensor.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import Annotated, Any, Literal

import numpy as np
from PIL import Image
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json
from python_multipart import FormParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import File, parse_options_header

from vggnet.data.decode import decode_image
from vggnet.data.memory import MemoryBudget
from vggnet.errors import ImageError
from vggnet.inference.reading import Reading, decoding_side, see
from vggnet.serve.limits import Limits
from vggnet.serve.pixels import Images, ImageShape, InputError, read_pixels, read_tensor

FORM = "multipart/form-data"


@dataclass(frozen=True)
class Intake:
    """What a body contains."""

    images: Images
    """uint8, (N, C, H, W), as the network takes them."""
    blank: list[bool] = field(default_factory=list)
    """For each image of the request whether it is blank; blank ones are not in `images`."""
    seen: str | None = None
    """The prepared image of a single file: a PNG in base64."""
    id: str | None = None
    """That the Open Inference Protocol returns to the client."""
    outputs: tuple[str, ...] = ()
    """Tensors that the client of the Open Inference Protocol asks for; default: all."""


@dataclass(frozen=True)
class Input:
    """What a network takes."""

    shape: ImageShape
    """Channels, height and width."""
    reading: Reading
    """How image files are prepared."""


class InputTensor(BaseModel):
    """Images: nested as their shape says, or flat in row-major order."""

    model_config = ConfigDict(extra="ignore")

    name: Literal["images"]
    datatype: Literal["UINT8"]
    shape: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=4, max_length=4)]
    data: list[Any]


class RequestedOutput(BaseModel):
    """A tensor that the client asks for."""

    name: Literal["probabilities", "classes"]


def _check_unique(outputs: list[RequestedOutput]) -> list[RequestedOutput]:
    if len({output.name for output in outputs}) < len(outputs):
        raise ValueError("name each output once")
    return outputs


class InferRequest(BaseModel):
    """A request of the Open Inference Protocol."""

    id: Annotated[str, Field(max_length=1000)] | None = None
    inputs: Annotated[list[InputTensor], Field(min_length=1, max_length=1)]
    outputs: (
        Annotated[
            list[RequestedOutput],
            Field(max_length=2, json_schema_extra={"uniqueItems": True}),
            AfterValidator(_check_unique),
        ]
        | None
    ) = None
    """Default: all."""


def read_prediction(body: bytes, content_type: str, network: Input, limits: Limits) -> Intake:
    """Read the body of a `/predict` request; its content decides, where its type is general.

    Args:
        body: The whole body.
        content_type: The header, with its parameters.
        network: What the images are prepared for.
        limits: Of pixels and files.

    Raises:
        InputError: It holds no images, or they do not fit the network.
        ImageError: An image cannot be decoded, or is too large.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind == FORM:
        return _see_files(_read_form(body, content_type), network, limits)
    if kind.endswith("json") or body[:1] == b"{":
        return _read_json(body, network, limits)
    return _see_files([("", body)], network, limits)


def read_inference(body: bytes, network: Input) -> Intake:
    """Read the body of an `infer` request.

    Raises:
        InputError: It is not what the protocol says, or its tensor does not fit the network.
    """
    try:
        request = InferRequest.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise InputError(f"{place}: {first['msg']}" if place else first["msg"]) from None
    tensor = request.inputs[0]
    images = read_tensor(tensor.data, tensor.shape, network.shape)
    outputs = tuple(output.name for output in request.outputs or ())
    return Intake(images, id=request.id, outputs=outputs)


def _read_json(body: bytes, network: Input, limits: Limits) -> Intake:
    try:
        value = from_json(body)
    except ValueError as error:
        raise InputError(f"the body is not JSON: {error}") from None
    keys = [key for key in ("images", "image") if isinstance(value, dict) and key in value]
    if not keys:
        raise InputError('send an object with "image" or "images"', hint=True)
    images = value[keys[0]]
    texts = [images] if isinstance(images, str) else images
    if isinstance(texts, list) and texts and all(isinstance(text, str) for text in texts):
        return _see_files([("", _read_base64(text)) for text in texts], network, limits)
    pixels = read_pixels(images, network.shape)
    return Intake(pixels, blank=[False] * len(pixels))


def _read_base64(text: str) -> bytes:
    """Return a file given in base64, as it is or as a data URL."""
    if found := re.match(r"data:[^,]*;base64,", text):
        text = text[found.end() :]
    try:
        return b64decode(re.sub(r"\s", "", text), validate=True)
    except (binascii.Error, ValueError):
        raise InputError(
            "an image in JSON is an array of pixels, or a file in base64 or as a data URL",
            hint=True,
        ) from None


def _read_form(body: bytes, content_type: str) -> list[tuple[str, bytes]]:
    """Return the names and bytes of a form's files, whatever their fields are called."""
    boundary = parse_options_header(content_type)[1].get(b"boundary")
    files: list[tuple[str, bytes]] = []

    def take(file: File) -> None:
        file.file_object.seek(0)
        name = (file.file_name or b"").decode("utf-8", "replace")
        files.append((name, file.file_object.read()))

    try:
        parser = FormParser(
            FORM, None, take, boundary=boundary, config={"MAX_MEMORY_FILE_SIZE": len(body) + 1}
        )
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise InputError(f"the form is damaged: {error}", hint=True) from None
    if not files:
        raise InputError("the form contains no file", hint=True)
    return files


def _see_files(files: Sequence[tuple[str, bytes]], network: Input, limits: Limits) -> Intake:
    """Prepare image files."""
    if len(files) > limits.request_files:
        raise InputError(f"send at most {limits.request_files} files at once, not {len(files)}")
    found = []
    for name, data in files:
        try:
            found.append(_see_file(data, network, limits))
        except ImageError as error:
            where = f"{name[:80]}: " if len(files) > 1 and name else ""
            raise InputError(f"{where}{error}", hint=not where) from None
    seen = [one for one in found if one is not None]
    images = np.stack(seen) if seen else np.empty((0, *network.shape), np.uint8)
    single = encode_png(seen[0]) if len(found) == len(seen) == 1 else None
    return Intake(images, [one is None for one in found], single)


def _see_file(data: bytes, network: Input, limits: Limits) -> Images | None:
    """Return a file's image as the network takes it, (C, H, W), or None if it is blank."""
    image = decode_image(
        data,
        max_pixels=limits.pixels,
        side=decoding_side(network.reading, network.shape),
        budget=MemoryBudget(limits.worker_bytes // 2),
    )
    seen = see(image, network.reading, network.shape)
    return seen[0] if seen else None


def encode_png(pixels: Images) -> str:
    """Return a (C, H, W) image as a PNG file in base64."""
    file = BytesIO()
    image = Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))
    image.save(file, "PNG")
    return b64encode(file.getvalue()).decode("ascii")
