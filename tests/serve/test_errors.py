"""Invalid requests get an error at once, in one sentence, and cost next to nothing."""

from __future__ import annotations

import io
import json
import logging
import struct
from collections.abc import Iterator

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from starlette.types import Receive, Scope, Send

from data.bomb import bomb
from vggnet.errors import ImageError, OutOfMemoryError
from vggnet.inference.reading import Reading
from vggnet.serve.access import Access
from vggnet.serve.guard import Guard
from vggnet.serve.http_errors import add_error_handlers
from vggnet.serve.intake import FORM, Input, read_inference, read_prediction
from vggnet.serve.limits import Limits
from vggnet.serve.metrics import Metrics
from vggnet.serve.pixels import InputError

from .conftest import Running, as_file, ask


def many_scans() -> bytes:
    """Return a JPEG of 4 megapixels and 120 kB that takes minutes to decode: 40,000 scans."""
    data = as_file(np.full((2000, 2000), 255, np.uint8), "JPEG", progressive=True)
    last = data.rfind(b"\xff\xda")
    scan = data[last:-2]
    return data[:last] + scan * (900_000 // len(scan)) + data[-2:]


def hostile_images() -> Iterator[tuple[str, bytes]]:
    """Make files that are not images, or that nobody should decode."""
    good = as_file(np.zeros((50, 50), np.uint8))
    yield "empty", b""
    yield "noise", bytes(range(256)) * 40
    yield "signature", good[:8]
    yield "half", good[: len(good) // 2]
    yield "broken", good[:40] + b"\xff" * 20 + good[60:]
    yield "bomb", bomb(13_000)
    yield "scans", many_scans()
    yield "wide", good.replace(struct.pack(">II", 50, 50), struct.pack(">II", 2**31 - 1, 1))
    yield "flat", good.replace(struct.pack(">II", 50, 50), struct.pack(">II", 0, 50))
    yield "svg", b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'
    yield "jpeg", b"\xff\xd8\xff\xe0" + b"\x00" * 200
    yield "bmp", b"BM" + b"\xff" * 60
    yield "webp", b"RIFF\xff\xff\xff\xffWEBPVP8 " + b"\x00" * 40


@pytest.mark.parametrize("data", [pytest.param(data, id=name) for name, data in hostile_images()])
def test_hostile_images(
    server: Running, client: httpx.Client, sheet: np.ndarray, data: bytes
) -> None:
    """Each is 422 under any content type, needs no memory, and the server goes on."""
    assert post(client, as_file(sheet)).status_code == 200
    before = server.memory_mib()
    for kind in ("image/png", "image/jpeg", "application/octet-stream"):
        response = post(client, data, kind)
        assert response.status_code == 422, response.text
        assert response.json()["detail"]
    assert server.memory_mib() - before < 6
    assert post(client, as_file(sheet)).json()["predictions"][0]["class"] == "5"


def images_json(value: object) -> bytes:
    """Return the body that sends some pixels."""
    return json.dumps({"images": value}, separators=(",", ":")).encode()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[" * 900_000,
        b'{"images": ' + b"[" * 900_000,
        b'{"images": ' + b"[" * 33 + b"0" + b"]" * 33 + b"}",
        b'{"images": NaN}',
        b'{"images": null}',
        b'{"images": []}',
        b'{"images": [' + b"[]," * 300_000 + b"[]]}",
        b'{"image": [[0]]}',
        b'{"image": "no base64"}',
        b'{"image": "data:image/png,AAAA"}',
        b'{"image": "\\ud800"}',
        b"[1, 2]",
        images_json([[0] * 28] * 27),
        images_json([[0] * 28] * 27 + [[0] * 27]),
        images_json([[0.5] * 28] * 28),
        images_json([[1.0] * 28] * 28),
        images_json([[256] * 28] * 28),
        images_json([[-1] * 28] * 28),
        images_json([["0"] * 28] * 28),
        images_json([[True] * 28] * 28),
        images_json([[10**30] * 28] * 28),
        images_json([[float("nan")] * 28] * 28),
        images_json(["x" * 400_000, *range(70_000)]),
        images_json([[[0] * 28] * 28] * 257),
        images_json(["AAAA"] * 33),
    ],
    ids=lambda body: f"{body[:24]!r}-{len(body)}",
)
def test_hostile_json(server: Running, client: httpx.Client, body: bytes) -> None:
    """JSON that holds no images of the network's size is 422, and needs little memory."""
    before = server.memory_mib()
    response = post(client, body, "application/json")
    assert response.status_code == 422
    assert len(response.json()["detail"]) < 250
    assert server.memory_mib() - before < 64


def infer(**changes: object) -> bytes:
    """Return the body of an inference request for two blank images."""
    tensor = {"name": "images", "datatype": "UINT8", "shape": [2, 1, 28, 28], "data": [0] * 1568}
    outside = {key: changes.pop(key) for key in ("id", "outputs") if key in changes}
    return json.dumps({"inputs": [{**tensor, **changes}], **outside}).encode()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"inputs": []}',
        infer(shape=[1, 1, 28, 28]),
        infer(shape=[2, 28, 28]),
        infer(datatype="FP32"),
        infer(name="pixels"),
        infer(data=[0.5] * 1568),
        infer(data=[256] * 1568),
        infer(data=[]),
        infer().replace(b"[0,", b"[" * 33 + b"0" + b"]" * 33 + b","),
        infer(id="\ud800"),
        infer(id="x" * 1001),
        infer(outputs=[{"name": "classes"}] * 2),
        infer(outputs=[{"name": "probabilities"}] * 20_000),
        infer(outputs=[{"name": "logits"}]),
    ],
    ids=lambda body: f"{body[-40:]!r}",
)
def test_protocol_errors_are_the_protocols(client: httpx.Client, body: bytes) -> None:
    """A request that the protocol or the model does not allow gets the protocol's error object."""
    response = client.post("/v2/models/vggnet/infer", content=body)
    assert response.status_code == 422
    assert list(response.json()) == ["error"]


@given(st.lists(st.sampled_from(["probabilities", "classes", "logits"]), max_size=40))
def test_outputs_are_named_once(names: list[str]) -> None:
    """Outputs of the protocol are those that there are, each at most once, in any order."""
    body = infer(outputs=[{"name": name} for name in names])
    if "logits" not in names and len(set(names)) == len(names):
        assert read_inference(body, NETWORK).outputs == tuple(names)
    else:
        with pytest.raises(InputError):
            read_inference(body, NETWORK)


def test_an_unknown_model_is_named(client: httpx.Client) -> None:
    """It is 404, and the error lists the models that there are."""
    for path, key in (("/models/x/predict", "detail"), ("/v2/models/x/infer", "error")):
        response = client.post(path, content=b"{}")
        assert response.status_code == 404
        assert "no model 'x'; there are vggnet, model" in response.json()[key]


def test_other_types(client: httpx.Client) -> None:
    """A body that says to be neither an image nor JSON is 415."""
    for kind in ("text/plain", "text/html", "video/mp4"):
        assert post(client, b"{}", kind).status_code == 415


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"hello", "text/plain"),
        (b"hello", "image/png"),
        (b'{"pixels": []}', "application/json"),
        (b'{"image": "?"}', "application/json"),
        (b"--b--\r\n", f"{FORM}; boundary=b"),
        (b"--b\r\n", FORM),
    ],
)
def test_an_error_shows_a_command_that_works(
    server: Running, client: httpx.Client, body: bytes, kind: str
) -> None:
    """Who sends a body in the wrong form is shown a `curl` command with the server's address."""
    detail = post(client, body, kind).json()["detail"]
    assert detail.endswith(f"for example: curl -F file=@image.png {server.url}/predict")


def test_a_bad_file_of_several_is_named(client: httpx.Client, sheet: np.ndarray) -> None:
    """The error names the file that cannot be read."""
    files = [("file", ("good.png", as_file(sheet))), ("file", ("bad.png", b"no image"))]
    response = client.post("/predict", files=files)
    assert response.status_code == 422
    assert response.json()["detail"].startswith("bad.png: not a PNG")


def test_large_bodies(client: httpx.Client) -> None:
    """More than 1 MB is 413, whether its length is declared or not."""

    def endless() -> Iterator[bytes]:
        for _ in range(40):
            yield bytes(50_000)

    assert post(client, bytes(1_000_001)).status_code == 413
    assert post(client, endless()).status_code == 413
    assert post(client, bytes(1_000_000)).status_code == 422


def test_every_response_has_security_headers(client: httpx.Client) -> None:
    """Responses and errors carry a policy that lets a browser run only this server's files."""
    for path in ("/", "/page.js", "/nowhere", "/openapi.json"):
        headers = client.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"


def post(
    client: httpx.Client,
    body: bytes | Iterator[bytes],
    kind: str = "image/png",
    **headers: str,
) -> httpx.Response:
    """Send a body."""
    return client.post("/predict", content=body, headers={"content-type": kind, **headers})


@pytest.mark.parametrize("error", [OutOfMemoryError("use a smaller --batch-size"), MemoryError()])
def test_too_little_memory_is_not_the_clients_fault(error: Exception) -> None:
    """It is 503 with Retry-After, and no advice about options of `vggnet`."""
    app = FastAPI()
    add_error_handlers(app, Limits())

    @app.get("/")
    def compute() -> None:
        raise error

    answer = ask(app)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.json() == {"detail": "the server is busy; try again shortly"}


def test_an_internal_error_can_be_found_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """It is 500 with a number; one line of the log has the number, and a counter increases."""

    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        raise ValueError("secret\nof two lines")

    metrics = Metrics()
    access = Access("localhost")
    guard = Guard(broken, access, Limits(), metrics, lambda: False)
    with caplog.at_level(logging.ERROR, "vggnet.serve"):
        answer = ask(guard, "/some/path%0A")
    assert answer.status_code == 500
    [record] = caplog.records
    line = record.getMessage()
    number = answer.json()["detail"].split()[2].rstrip(";")
    assert line.startswith(
        f"error {number}: 'GET /some/path\\n': ValueError: secret\\nof two lines at"
    )
    assert "\n" not in line
    assert "secret" not in answer.text
    assert b"vggnet_errors_total 1.0" in metrics.render()


def test_unknown_methods_are_counted_together(client: httpx.Client) -> None:
    """A scanner cannot add a line to the metrics with each request."""
    for method in ("AAA1", "AAA2"):
        assert client.request(method, "/healthz").status_code == 405
    text = client.get("/metrics").text
    assert "AAA" not in text
    assert 'method="other",route="/healthz",status="405"' in text


def test_an_image_of_dots_is_answered(client: httpx.Client) -> None:
    """An image of sixty thousand specks is answered like any other: nothing is drawn."""
    dots = np.full((512, 512), 255, np.uint8)
    dots[::2, ::2] = 0
    found = client.post("/predict", content=as_file(dots), headers={"Content-Type": "image/png"})
    assert found.status_code == 200


NETWORK = Input((1, 28, 28), Reading.DRAWN)

VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
JSON = st.recursive(
    VALUES,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
)
NESTED = st.builds(
    lambda depth, value: b"[" * depth + value + b"]" * depth,
    st.integers(0, 300),
    st.sampled_from([b"0", b"", b'"\\ud800"', b"1e999", b"{}"]),
)


@given(
    st.sampled_from([b'{"images":%s}', b'{"image":[%s]}', b"%s"]),
    st.builds(lambda value: json.dumps(value).encode(), JSON) | NESTED,
    st.sampled_from(["application/json", "", FORM, f"{FORM}; boundary=b", "image/png"]),
)
def test_any_json_is_an_image_or_an_input_error(form: bytes, value: bytes, kind: str) -> None:
    """Whatever the body, reading it raises nothing but the error for the client."""
    try:
        found = read_prediction(form % value, kind, NETWORK, Limits())
    except InputError:
        return
    assert found.images.shape[1:] == (1, 28, 28)


@given(
    st.sampled_from(
        [
            b'{"inputs":[{"name":"images","datatype":"UINT8","shape":[1,1,28,28],"data":%s}]}',
            b'{"inputs":[{"name":"images","datatype":"UINT8","shape":%s,"data":[0]}]}',
            b'{"id":%s,"inputs":[]}',
            b'{"inputs":[],"outputs":%s}',
        ]
    ),
    st.builds(lambda value: json.dumps(value).encode(), JSON) | NESTED,
)
def test_any_inference_request_is_a_tensor_or_an_input_error(form: bytes, value: bytes) -> None:
    """The same for the Open Inference Protocol."""
    with pytest.raises(InputError):
        read_inference(form % value, NETWORK)


@given(
    st.lists(
        st.tuples(st.text(max_size=8), st.text(max_size=8), st.binary(max_size=60)), max_size=4
    ),
    st.integers(0, 300),
    st.data(),
)
def test_any_form_is_an_image_or_an_input_error(
    parts: list[tuple[str, str, bytes]], length: int, data: st.DataObject
) -> None:
    """Forms with any names and contents, cut anywhere and with a changed byte."""
    files = [(name, (file, content)) for name, file, content in parts]
    request = httpx.Request("POST", "http://localhost", files=files or [("a", ("b", b""))])
    body = bytearray(request.read()[:length])
    if body:
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    with pytest.raises(InputError):
        read_prediction(bytes(body), request.headers["content-type"], NETWORK, Limits())


@given(st.binary(max_size=300), st.sampled_from(["PNG", "JPEG", "WEBP", "BMP", "GIF"]), st.data())
def test_any_image_file_is_an_image_or_an_input_error(
    noise: bytes, kind: str, data: st.DataObject
) -> None:
    """Files that begin as an image and go on as noise."""
    file = io.BytesIO()
    Image.new("L", (9, 9), 255).save(file, kind)
    whole = file.getvalue()
    body = whole[: data.draw(st.integers(0, len(whole)))] + noise
    try:
        read_prediction(body, "image/png", NETWORK, Limits())
    except (InputError, ImageError):
        return
