"""What the server answers to those who ask properly."""

from __future__ import annotations

from base64 import b64decode
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

import vggnet
from vggnet.data.dataset import LabeledImages

from .conftest import as_file


def predict(client: httpx.Client, body: bytes, kind: str) -> httpx.Response:
    """Ask for an image file."""
    return client.post("/predict", content=body, headers={"content-type": kind})


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "bmp"])
def test_a_image_file_is_read(client: httpx.Client, sheet: np.ndarray, kind: str) -> None:
    """A digit on a sheet of paper is found and read, and the answer shows what was seen."""
    response = predict(client, as_file(sheet, kind.upper()), f"image/{kind}")
    assert response.status_code == 200
    answer = response.json()
    [prediction] = answer["predictions"]
    assert prediction["class"] == "5"
    assert prediction["probability"] == max(prediction["probabilities"].values())
    assert list(prediction["probabilities"]) == list("0123456789")
    assert sum(prediction["probabilities"].values()) == pytest.approx(1, abs=1e-4)
    with Image.open(BytesIO(b64decode(answer["seen"]))) as seen:
        assert (seen.size, seen.mode, seen.format) == ((28, 28), "L", "PNG")
        assert np.asarray(seen)[0].max() == 0


def test_an_empty_sheet_is_no_digit(client: httpx.Client) -> None:
    """Blank paper is answered with null, not with a guess."""
    blank = as_file(np.full((200, 200), 255, np.uint8))
    answer = predict(client, blank, "image/png").json()
    nothing = {"class": None, "probability": None, "probabilities": None}
    assert answer == {"predictions": [nothing], "seen": None}


def test_arrays_are_answered_as_the_library_does(
    client: httpx.Client, digit_model: Path, few: LabeledImages
) -> None:
    """One array and several get the probabilities that `Classifier.predict` gives."""
    images = few.images[:7, 0]
    expected = vggnet.load(digit_model).predict(images)
    for body, count in (
        (images.tolist(), 7),
        (images[0].tolist(), 1),
        (few.images[:3].tolist(), 3),
    ):
        predictions = client.post("/predict", json={"images": body}).json()["predictions"]
        assert [one["class"] for one in predictions] == expected.classes[:count]
        found = [list(one["probabilities"].values()) for one in predictions]
        assert np.allclose(found, expected.probabilities[:count], atol=1e-5)


def test_requests_of_a_moment_are_computed_together(
    client: httpx.Client, few: LabeledImages
) -> None:
    """40 requests at once need fewer batches, and each gets its own answer."""
    images = few.images[:40, 0]
    alone = [client.post("/predict", json={"images": one.tolist()}).json() for one in images]
    before = read_metrics(client)
    with ThreadPoolExecutor(40) as pool:
        together = pool.map(
            lambda one: client.post("/predict", json={"images": one.tolist()}).json(), images
        )
    for one, other in zip(alone, together, strict=True):
        assert one["predictions"][0]["class"] == other["predictions"][0]["class"]
    after = read_metrics(client)
    batches = after["vggnet_batch_images_count"] - before["vggnet_batch_images_count"]
    images = after["vggnet_batch_images_sum"] - before["vggnet_batch_images_sum"]
    assert images == 40
    assert batches < 40


def test_metrics(client: httpx.Client) -> None:
    """Requests are counted by route and status, timed, and unknown paths share one label."""
    before = read_metrics(client)
    for path in ("/healthz", "/nowhere", "/nowhere/else"):
        client.get(path)
    after = read_metrics(client)

    def added(name: str) -> float:
        return after.get(name, 0) - before.get(name, 0)

    assert added('vggnet_requests_total{method="GET",route="/healthz",status="200"}') == 1
    assert added('vggnet_requests_total{method="other",route="other",status="404"}') == 2
    assert added('vggnet_request_seconds_count{route="/healthz"}') == 1
    assert after["vggnet_requests_in_flight"] == 1
    assert "nowhere" not in "".join(after)


def test_state_and_description(client: httpx.Client) -> None:
    """The server says that it runs and is ready, and describes itself without loading scripts."""
    assert client.get("/healthz").json() == {"status": "running"}
    assert client.get("/readyz").json() == {"status": "ready"}
    paths = client.get("/openapi.json").json()["paths"]
    assert {"/predict", "/healthz", "/readyz", "/metrics", "/v2/models/vggnet/infer"} <= set(paths)
    assert client.get("/docs").status_code == 404


def test_open_inference_protocol(
    client: httpx.Client, digit_model: Path, few: LabeledImages
) -> None:
    """A client of the protocol finds server and model, and sends tensors flat or nested."""
    assert client.get("/v2").json()["name"] == "vggnet"
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    assert client.get("/v2/models/vggnet/ready").json() == {"name": "vggnet", "ready": True}
    described = client.get("/v2/models/vggnet").json()
    assert described["inputs"] == [
        {"name": "images", "datatype": "UINT8", "shape": [-1, 1, 28, 28]}
    ]
    images = few.images[:2]
    expected = vggnet.load(digit_model).predict(images)
    tensor = {"name": "images", "datatype": "UINT8", "shape": [2, 1, 28, 28]}
    for data in (images.tolist(), images.ravel().tolist()):
        body = {"id": "mine", "inputs": [{**tensor, "data": data}]}
        answer = client.post("/v2/models/vggnet/infer", json=body).json()
        assert (answer["id"], answer["model_name"]) == ("mine", "vggnet")
        probabilities, classes = answer["outputs"]
        assert probabilities["shape"] == [2, 10]
        assert np.allclose(probabilities["data"], expected.probabilities.ravel(), atol=1e-5)
        assert classes["data"] == expected.classes
    body = {"inputs": [{**tensor, "data": data}], "outputs": [{"name": "classes"}]}
    [only] = client.post("/v2/models/vggnet/infer", json=body).json()["outputs"]
    assert only["name"] == "classes"


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [1, 1, 28, 28]},
        {"shape": [2, 28, 28]},
        {"datatype": "FP32"},
        {"name": "pixels"},
        {"data": [0.5] * 1568},
        {"data": [256] * 1568},
        {"data": []},
    ],
)
def test_protocol_errors_are_the_protocols(client: httpx.Client, change: dict[str, object]) -> None:
    """Another tensor than the model's is refused with the protocol's error object."""
    tensor = {"name": "images", "datatype": "UINT8", "shape": [2, 1, 28, 28], "data": [0] * 1568}
    response = client.post("/v2/models/vggnet/infer", json={"inputs": [{**tensor, **change}]})
    assert response.status_code == 422
    assert list(response.json()) == ["error"]


def read_metrics(client: httpx.Client) -> dict[str, float]:
    """Return Prometheus' text format as name to value."""
    lines = client.get("/metrics").text.splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(value) for name, value in pairs}
