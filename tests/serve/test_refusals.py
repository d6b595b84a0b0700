"""What the server refuses: at once, in a sentence, and without a price."""

from __future__ import annotations

import asyncio
import io
import json
import socket
import struct
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from PIL import Image

from data.bomb import bomb
from vggnet.errors import OutOfMemoryError
from vggnet.serve.limits import Limits
from vggnet.serve.refusals import add_refusals

from .conftest import Running, as_file


def hostile_images() -> Iterator[tuple[str, bytes]]:
    """Make files that are no images, or not ones that anybody should unpack."""
    good = as_file(np.zeros((50, 50), np.uint8))
    yield "empty", b""
    yield "noise", bytes(range(256)) * 40
    yield "signature", good[:8]
    yield "half", good[: len(good) // 2]
    yield "broken", good[:40] + b"\xff" * 20 + good[60:]
    yield "bomb", bomb(13_000)
    yield "wide", good.replace(struct.pack(">II", 50, 50), struct.pack(">II", 2**31 - 1, 1))
    yield "flat", good.replace(struct.pack(">II", 50, 50), struct.pack(">II", 0, 50))
    yield "svg", b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'
    yield "jpeg", b"\xff\xd8\xff\xe0" + b"\x00" * 200
    yield "bmp", b"BM" + b"\xff" * 60
    yield "webp", b"RIFF\xff\xff\xff\xffWEBPVP8 " + b"\x00" * 40
    gif = io.BytesIO()
    Image.new("L", (9, 9)).save(gif, "GIF")
    yield "gif", gif.getvalue()


@pytest.mark.parametrize("data", [pytest.param(data, id=name) for name, data in hostile_images()])
def test_hostile_images(
    server: Running, client: httpx.Client, sheet: np.ndarray, data: bytes
) -> None:
    """Each is 422 in a sentence whatever type it claims, costs no memory, and breaks nothing."""
    assert post(client, as_file(sheet)).status_code == 200
    before = server.memory_mib()
    for kind in ("image/png", "image/jpeg", "image/bmp"):
        response = post(client, data, kind)
        assert response.status_code == 422, response.text
        assert response.json()["detail"]
    assert server.memory_mib() - before < 4
    assert post(client, as_file(sheet)).json()["predictions"][0]["class"] == "5"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[" * 900_000,
        b'{"images": ' + b"[" * 900_000,
        b'{"images": NaN}',
        b'{"images": null}',
        b'{"images": []}',
        b'{"image": [[0]]}',
        b"[1, 2]",
        json.dumps({"images": [[0] * 28] * 27}).encode(),
        json.dumps({"images": [[0] * 28] * 27 + [[0] * 27]}).encode(),
        json.dumps({"images": [[0.5] * 28] * 28}).encode(),
        json.dumps({"images": [[256] * 28] * 28}).encode(),
        json.dumps({"images": [[-1] * 28] * 28}).encode(),
        json.dumps({"images": [["0"] * 28] * 28}).encode(),
        json.dumps({"images": [[True] * 28] * 28}).encode(),
        json.dumps({"images": [[10**30] * 28] * 28}).encode(),
        json.dumps({"images": ["x" * 400_000, *range(70_000)]}).encode(),
        json.dumps({"images": [[[0] * 28] * 28] * 257}, separators=(",", ":")).encode(),
    ],
    ids=lambda body: f"{body[:24]!r}-{len(body)}",
)
def test_hostile_json(server: Running, client: httpx.Client, body: bytes) -> None:
    """What is no list of images of the network's size is 422, and small in memory."""
    before = server.memory_mib()
    response = post(client, body, "application/json")
    assert response.status_code == 422
    assert len(response.json()["detail"]) < 200
    assert server.memory_mib() - before < 64


def test_other_types(client: httpx.Client) -> None:
    """A body of another type is 415, by either protocol."""
    for kind in ("text/plain", "image/gif", "multipart/form-data", ""):
        assert post(client, b"{}", kind).status_code == 415
        headers = {"content-type": kind}
        response = client.post("/v2/models/vggnet/infer", content=b"{}", headers=headers)
        assert response.status_code == 415


def test_large_bodies(client: httpx.Client) -> None:
    """Over 1 MB is 413, whether its length is declared or found on the way."""

    def endless() -> Iterator[bytes]:
        for _ in range(40):
            yield bytes(50_000)

    assert post(client, bytes(1_000_001)).status_code == 413
    assert post(client, endless()).status_code == 413
    assert post(client, bytes(1_000_000)).status_code == 422


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "localhost.evil.example", "10.0.0.7", "a@localhost"]
)
def test_other_hosts(client: httpx.Client, host: str) -> None:
    """A name that is not this server's is 400: DNS rebinding leads nowhere."""
    for path in ("/", "/predict", "/metrics"):
        assert client.get(path, headers={"host": host}).status_code == 400


def test_other_origins(server: Running, client: httpx.Client, sheet: np.ndarray) -> None:
    """Pages from elsewhere are 403 and given no CORS header; its own page is served."""
    for origin in ("http://evil.example", "null", "http://127.0.0.1:1", "https://localhost"):
        response = post(client, as_file(sheet), origin=origin)
        assert response.status_code == 403
        assert "access-control-allow-origin" not in response.headers
    assert post(client, as_file(sheet), origin=server.url).status_code == 200


def test_every_answer_is_secured(client: httpx.Client) -> None:
    """Answers and refusals carry a policy that lets a browser run only this server's files."""
    for path in ("/", "/page.js", "/nowhere", "/openapi.json"):
        headers = client.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"


def test_slow_clients_hold_nobody_up(server: Running, client: httpx.Client) -> None:
    """While 50 clients have sent half a request, another is answered."""
    address = urlsplit(server.url)
    halves = [socket.create_connection((address.hostname, address.port)) for _ in range(50)]
    try:
        for number, connection in enumerate(halves):
            head = f"POST /predict HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Length: 900\r\n"
            connection.sendall(head.encode() + (b"\r\nhalf" if number % 2 else b""))
        assert client.get("/readyz").status_code == 200
        assert post(client, b"").status_code == 422
    finally:
        for connection in halves:
            connection.close()


def post(
    client: httpx.Client,
    body: bytes | Iterator[bytes],
    kind: str = "image/png",
    **headers: str,
) -> httpx.Response:
    """Ask for an answer to a body."""
    return client.post("/predict", content=body, headers={"content-type": kind, **headers})


@pytest.mark.parametrize("error", [OutOfMemoryError("use a smaller --batch-size"), MemoryError()])
def test_short_memory_is_not_the_clients_fault(error: Exception) -> None:
    """It is 503 with Retry-After, and not a sentence on how to call `vggnet`."""
    app = FastAPI()
    add_refusals(app, Limits())

    @app.get("/")
    def compute() -> None:
        raise error

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://a") as client:
            return await client.get("/")

    answer = asyncio.run(ask())
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.json() == {"detail": "the server is busy; try again shortly"}


def test_made_up_methods_are_counted_together(server: Running, client: httpx.Client) -> None:
    """A scanner cannot add a line to the metrics with each request."""
    for method in ("AAA1", "AAA2"):
        assert client.request(method, "/healthz").status_code == 405
    text = client.get("/metrics").text
    assert "AAA" not in text
    assert 'method="other",route="/healthz",status="405"' in text


def test_a_image_of_dots_is_answered(client: httpx.Client) -> None:
    """Sixty thousand specks are one request like another, and nothing drawn."""
    dots = np.full((512, 512), 255, np.uint8)
    dots[::2, ::2] = 0
    found = client.post("/predict", content=as_file(dots), headers={"Content-Type": "image/png"})
    assert found.status_code == 200
