"""Answers to valid requests."""

from __future__ import annotations

from base64 import b64decode, b64encode
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

import vggnet
from vggnet.data.dataset import LabeledImages

from .conftest import as_file, read_metrics


def predict(client: httpx.Client, body: bytes, kind: str) -> httpx.Response:
    """Send an image file."""
    return client.post("/predict", content=body, headers={"content-type": kind})


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "bmp"])
def test_an_image_file_is_classified(client: httpx.Client, sheet: np.ndarray, kind: str) -> None:
    """A digit on a sheet of paper is found and classified; the response shows what was seen."""
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


@pytest.mark.parametrize(
    "kind",
    [
        "image/jpg",
        "image/x-png",
        "application/octet-stream",
        "application/x-www-form-urlencoded",
        "",
    ],
)
def test_content_decides_what_a_file_is(client: httpx.Client, sheet: np.ndarray, kind: str) -> None:
    """A PNG is a PNG under other names of its type, under curl's default type, or under none."""
    response = predict(client, as_file(sheet), kind)
    assert response.json()["predictions"][0]["class"] == "5"


def test_a_form_with_files(client: httpx.Client, sheet: np.ndarray) -> None:
    """Files of a form are answered in their order, whatever the fields are called."""
    blank = np.full_like(sheet, 255)
    files = [
        ("file", ("five.png", as_file(sheet), "image/png")),
        ("files[]", ("blank.jpg", as_file(blank, "JPEG"))),
        ("upload", ("again.bmp", as_file(sheet, "BMP"))),
    ]
    answer = client.post("/predict", files=files, data={"note": "not a file"}).json()
    assert [one["class"] for one in answer["predictions"]] == ["5", None, "5"]
    assert answer["seen"] is None
    single = client.post("/predict", files=files[:1]).json()
    assert single["predictions"][0]["class"] == "5"
    assert single["seen"] is not None


def test_base64_in_json(client: httpx.Client, sheet: np.ndarray) -> None:
    """A file in base64 or as a data URL is an image file, alone or in a list."""
    text = b64encode(as_file(sheet)).decode()
    lines = "\n".join(text[at : at + 76] for at in range(0, len(text), 76))
    for value in (text, lines, f"data:image/png;base64,{text}", f"data:;base64,{text}"):
        for body in ({"image": value}, {"images": value}, {"images": [value]}):
            answer = client.post("/predict", json=body).json()
            assert answer["predictions"][0]["class"] == "5", answer
            assert answer["seen"]
    answer = client.post("/predict", json={"images": [text, text]}).json()
    assert [one["class"] for one in answer["predictions"]] == ["5", "5"]


def test_json_needs_no_content_type(client: httpx.Client, few: LabeledImages) -> None:
    """`curl -d '{"images": ...}'` sends JSON under the type of a form."""
    body = httpx.Request("POST", "/", json={"images": few.images[0, 0].tolist()}).content
    response = predict(client, body, "application/x-www-form-urlencoded")
    assert response.status_code == 200


def test_a_blank_sheet_is_not_classified(client: httpx.Client) -> None:
    """Blank paper is answered with null, not with a guess."""
    blank = as_file(np.full((200, 200), 255, np.uint8))
    answer = predict(client, blank, "image/png").json()
    fields = ("class", "probability", "probabilities", "typicality", "unlike_training")
    nothing = dict.fromkeys(fields)
    assert answer == {"predictions": [nothing], "seen": None}


def test_images_that_are_no_digits_are_flagged(client: httpx.Client, sheet: np.ndarray) -> None:
    """A grid is unlike the training images and gets its prediction anyway; a digit is not."""
    grid = np.full((200, 200), 255, np.uint8)
    grid[40:160:15, 40:160] = grid[40:160, 40:160:15] = 0
    found = [predict(client, as_file(one), "image/png").json()["predictions"][0]
             for one in (grid, sheet)]  # fmt: skip
    assert [one["unlike_training"] for one in found] == [True, False]
    assert found[0]["typicality"] < 0.01 < found[1]["typicality"]
    assert found[0]["class"] is not None


def test_evidence_is_painted_over_the_image(client: httpx.Client, sheet: np.ndarray) -> None:
    """One image gets a colored image; a blank one gets null, and two are refused."""
    file, blank = as_file(sheet), as_file(np.full_like(sheet, 255))
    found = client.post("/explain", content=file).json()
    assert (found["class"], found["method"]) == ("5", "occlusion")
    with Image.open(BytesIO(b64decode(found["image"]))) as image:
        assert (image.size, image.mode) == ((28, 28), "RGB")
        red, green, blue = np.moveaxis(np.asarray(image).astype(int), -1, 0)
        assert ((red - blue) > 100).any()
        assert green.max() > 200
    nothing = client.post("/explain", content=blank).json()
    assert nothing == {"class": None, "method": None, "image": None}
    several = client.post("/explain", files=[("file", file), ("file", file)])
    assert several.status_code == 422
    assert "send one image to explain, not 2" in several.json()["detail"]


def test_arrays_are_classified_as_in_the_library(
    client: httpx.Client, digit_model: Path, few: LabeledImages
) -> None:
    """One array and several get the probabilities of `Classifier.predict`; 7.0 counts as 7."""
    images = few.images[:7, 0]
    expected = vggnet.load(digit_model).predict(images)
    for body, count in (
        (images.tolist(), 7),
        (images[0].tolist(), 1),
        (few.images[:3].tolist(), 3),
        (images.astype(float).tolist(), 7),
    ):
        for key in ("images", "image"):
            predictions = client.post("/predict", json={key: body}).json()["predictions"]
            assert [one["class"] for one in predictions] == expected.classes[:count]
            found = [list(one["probabilities"].values()) for one in predictions]
            assert np.allclose(found, expected.probabilities[:count], atol=1e-5)


def test_requests_are_computed_together(client: httpx.Client, few: LabeledImages) -> None:
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
    """Requests are counted by route and status and timed; unknown paths share one label."""
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
    assert {"/predict", "/healthz", "/readyz", "/metrics", "/v2/models/{model}/infer"} <= set(paths)
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
    for wanted in (["classes"], ["classes", "probabilities"]):
        outputs = [{"name": name} for name in wanted]
        body = {"inputs": [{**tensor, "data": data}], "outputs": outputs}
        answer = client.post("/v2/models/vggnet/infer", json=body).json()
        assert [one["name"] for one in answer["outputs"]] == wanted
