"""A model as one page: it opens from the disk, offline, and computes what the network computes."""

from __future__ import annotations

import json
import os
import stat
from base64 import b64decode
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import vggnet as package
from conftest import Outcome
from handwriting import CHROMIUM, DIGITS, draw, settled
from vggnet.artifacts.export.program import EndToEndModel
from vggnet.artifacts.model_card import ModelCard
from vggnet.artifacts.model_file import LoadedModel, save_model
from vggnet.config import ModelConfig
from vggnet.data.dataset import Dataset
from vggnet.engine.calibration import Calibration
from vggnet.model.vgg import build_network
from vggnet.page.bundle import bundle
from vggnet.page.export import render_page
from vggnet.page.measure import BROWSERS, Runtime, classify, find_runtime

Command = Callable[..., Outcome]

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium here")


@pytest.fixture(params=[390, 1280])
def page(browser: Any, exported: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
    """The page from the disk, without a network; messages and requests are errors."""
    context = browser.new_context(
        viewport={"width": request.param, "height": 844}, offline=True, has_touch=True
    )
    page = context.new_page()
    said: list[str] = []
    page.on("console", lambda one: None if "Canvas2D" in one.text else said.append(one.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda one: said.append(one.url))
    page.goto(exported.as_uri())
    yield page
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    context.close()
    # Its own file, and the worker, which is in it.
    assert said[0] == exported.as_uri()
    assert [one.partition(":")[0] for one in said[1:]] == ["blob"]


def shown(page: Any) -> np.ndarray:
    """Return the image as the network sees it."""
    source = page.locator("#seen").get_attribute("src")
    with Image.open(BytesIO(b64decode(source.partition(",")[2]))) as image:
        assert (image.size, image.mode) == ((28, 28), "L")
        return np.asarray(image)


@needs_chromium
def test_ten_digits_are_read(page: Any, digit_model: Path) -> None:
    """At least nine of ten are right, and the probability is the one that Python computes."""
    model = package.load(digit_model, kernels="torch")
    right = 0
    for label, strokes in DIGITS.items():
        draw(page, strokes)
        answer = settled(page)
        right += answer == label
        found = model.predict(shown(page))
        assert found.classes == [answer]
        probability = float(page.locator("#confidence").text_content().split()[0])
        assert abs(probability - 100 * found.probabilities.max()) < 2  # weights have 8 bits
        page.get_by_role("button", name="Clear").click()
        playwright.expect(page.locator("#answer")).to_have_text("?")
    assert right >= 9
    assert page.locator("#inside").is_hidden()


@needs_chromium
def test_inside_the_network(page: Any) -> None:
    """Feature maps follow the drawing; the unit under the pointer is described, and its pixels."""
    draw(page, DIGITS["7"])
    settled(page)
    maps = page.locator("#layers canvas")
    names = page.locator("#layers figcaption").all_text_contents()
    assert names == [
        "Convolution 1.1 · 16 maps of 28 × 28",
        "Max pool 1 · 16 maps of 14 × 14",
        "Convolution 2.1 · 32 maps of 14 × 14",
        "Max pool 2 · 32 maps of 7 × 7",
    ]
    before = maps.nth(3).evaluate("(canvas) => canvas.toDataURL()")
    maps.nth(2).hover(position={"x": 2, "y": 2})
    unit = page.locator("#unit")
    playwright.expect(unit).to_contain_text("Convolution 2.1, map 1, row 1, column 1:")
    playwright.expect(unit).to_contain_text("It sees 5 × 5 pixels.")  # at the edge; 8 × 8 inside
    assert page.locator("#filter").is_visible()
    assert page.locator("#picks").is_hidden()
    maps.nth(1).focus()
    page.keyboard.press("ArrowDown")
    playwright.expect(unit).to_contain_text("Max pool 1, map 1, row 2, column 1:")
    playwright.expect(unit).to_contain_text("It sees 3 × 4 pixels.")
    assert page.locator("#picks").is_visible()
    playwright.expect(page.locator("#status")).to_contain_text("Max pool 1")
    playwright.expect(page.locator("#evidence")).to_be_visible()
    draw(page, DIGITS["1"])
    settled(page)
    assert maps.nth(3).evaluate("(canvas) => canvas.toDataURL()") != before


@needs_chromium
def test_evidence_is_where_the_strokes_are(page: Any) -> None:
    """Covering empty paper changes nothing; covering strokes does."""
    draw(page, DIGITS["7"])
    settled(page)
    colors = """() => {
        const canvas = document.getElementById("evidence");
        const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
        const at = (x, y) => [...data.slice(4 * (y * canvas.width + x)).slice(0, 3)];
        let colored = 0;
        for (let place = 0; place < data.length; place += 4)
          colored += Math.abs(data[place] - data[place + 2]) > 20;
        return [at(4, 4), colored];
    }"""
    while (found := page.evaluate(colors))[1] < 100:  # the page's policy forbids wait_for_function
        page.wait_for_timeout(100)
    assert found[0] == [0, 0, 0]


@needs_chromium
def test_the_keyboard_draws(page: Any) -> None:
    """Arrow keys and space draw a 1, and the answer is spoken."""
    page.locator("#pad").focus()
    for key, times in (("ArrowUp", 4), (" ", 1), ("ArrowDown", 20), (" ", 1)):
        for _ in range(times):
            page.keyboard.press(key)
    assert settled(page) == "1"
    playwright.expect(page.locator("#status")).to_contain_text("Prediction 1")


@needs_chromium
def test_an_image_file_is_read(page: Any, mnist: Dataset, tmp_path: Path) -> None:
    """A file that is opened counts like a drawing; what is no image is named."""
    path = tmp_path / "sheet.png"
    at = int(np.flatnonzero(mnist.test.labels == 0)[0])
    Image.fromarray(255 - mnist.test.images[at, 0].repeat(8, 0).repeat(8, 1)).save(path)
    page.locator("#file").set_input_files(path)
    playwright.expect(page.locator("#answer")).to_have_text("0")
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    page.locator("#file").set_input_files(broken)
    playwright.expect(page.locator("#confidence")).to_contain_text("broken.png is not an image")


@needs_chromium
def test_in_chinese(browser: Any, exported: Path) -> None:
    """A browser that prefers Chinese gets every text in Chinese."""
    context = browser.new_context(locale="zh-CN", offline=True)
    page = context.new_page()
    page.goto(exported.as_uri())
    draw(page, DIGITS["1"])
    settled(page)
    playwright.expect(page.locator("#unit")).to_contain_text("它看到")
    texts = page.evaluate("[...document.querySelectorAll('[data-text]')].map((e) => e.textContent)")
    assert len(texts) > 25
    assert [text for text in texts if text.isascii()] == []
    context.close()


@needs_chromium
def test_other_classes_and_colors(browser: Any, tmp_path: Path) -> None:
    """With 30 classes there are bars for 16, and a name that looks like HTML stays a name."""
    names = [f"</script><b>{number}" for number in range(30)]
    config = ModelConfig(
        architecture="custom", stages=((8, "lrn"), (8,)), hidden=(), in_channels=3, num_classes=30,
        image_size=20,
    )  # fmt: skip
    calibration = Calibration(scale=5, curvature=2, images=10)
    card = ModelCard(classes=tuple(names), image_shape=(3, 18, 18), calibration=calibration)
    model = EndToEndModel(LoadedModel(build_network(config, 0).eval(), card))
    path = tmp_path / "page.html"
    path.write_text(render_page(model, False, 16), encoding="utf-8")
    page = browser.new_page()
    page.goto(path.as_uri())
    playwright.expect(page.locator("h1")).to_have_text("Open an image")
    picture = tmp_path / "image.png"
    pixels = np.random.default_rng(0).integers(0, 256, (18, 18, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(picture)
    page.locator("#file").set_input_files(picture)
    with torch.no_grad():
        _, found = model(torch.tensor(pixels.transpose(2, 0, 1)[None].copy()))
    playwright.expect(page.locator("#answer")).to_have_text(names[int(found.argmax())])
    probability = float(page.locator("#confidence").text_content().split()[0])
    assert abs(probability - 100 * float(found.max())) < 0.1  # calibrated
    assert page.locator("#bars li").count() == 16
    page.close()


def test_export(vggnet: Command, digit_model: Path) -> None:
    """The command measures with the page's own script, and reports it."""
    done = vggnet("export", digit_model, "--format", "html", "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["path"] == "model.html"
    assert found["bits"] in (8, 16)
    if found["runtime"]:
        assert found["images"] == 1000
        assert found["worst"] <= 1e-4
        assert found["same"] >= 990
        assert abs(found["accuracy_page"] - found["accuracy_float"]) < 0.005
    assert "/home" not in Path("model.html").read_text()


def test_without_node_and_browser(
    vggnet: Command, digit_model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The report says that nothing was measured; a second export replaces the first one's file."""
    monkeypatch.setenv("PATH", str(tmp_path))
    for _ in range(2):
        done = vggnet("export", digit_model, "--format", "html")
        assert done.code == 0, done.err
    assert "not measured: no Node.js or browser here" in done.out


def test_both_runtimes_compute_the_same(
    exported: Path, digit_model: Path, mnist: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Node.js and a browser give the probabilities of the network."""
    runtimes = {True: CHROMIUM and Runtime(BROWSERS[0], Path(CHROMIUM), True)}
    if (found := find_runtime()) and not found.is_browser:
        runtimes[False] = found
    pixels = mnist.test.images[:50]
    expected = package.load(digit_model, kernels="torch").predict(pixels).probabilities
    for runtime in filter(None, runtimes.values()):
        shares = classify(exported, pixels, runtime)
        assert np.abs(shares - expected).max() < 0.03  # weights have 8 bits


def test_a_network_that_is_too_large(vggnet: Command) -> None:
    """It is refused with the limit, and what to do."""
    config = ModelConfig(architecture="custom", stages=((8,),), hidden=(14_000,), image_size=28)
    network = build_network(config, 0)
    save_model(
        Path("large.safetensors"),
        network,
        ModelCard(classes=tuple("0123456789"), image_shape=(1, 28, 28)),
    )
    for kind, most in (("html", "20,000,000"), ("c", "5,000,000")):
        done = vggnet("export", "large.safetensors", "--format", kind)
        assert done.code == 1
        assert f"at most {most}" in done.err
        assert "--width" in done.err
        assert not Path(f"large.{kind}").exists()


def test_a_script_that_fails_leaves_no_file(
    vggnet: Command, digit_model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """If Node.js cannot run the page's script, the error says so."""
    node = tmp_path / "bin" / "node"
    node.parent.mkdir()
    node.write_text("#!/bin/sh\necho out of order >&2\nexit 3\n")
    node.chmod(node.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{node.parent}{os.pathsep}{os.environ['PATH']}")
    done = vggnet("export", digit_model, "--format", "html")
    assert done.code == 1
    assert "out of order" in done.err
    assert not Path("model.html").exists()


@pytest.mark.parametrize("entry", ["page", "worker"])
def test_the_bundle_has_no_modules_left(entry: str) -> None:
    """Every import is resolved, and each module is there once."""
    script = bundle(entry)
    assert "import {" not in script
    assert "\nexport " not in script
    lines = [line for line in script.splitlines() if line.startswith("const modules_")]
    declared = [line for line in lines if line.endswith("(() => {")]
    assert len(set(declared)) == len(declared)
