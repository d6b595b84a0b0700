"""The page in a real browser: draw, read the prediction, save the drawings."""

from __future__ import annotations

import json
import zipfile
from base64 import b64encode
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from conftest import Outcome
from handwriting import CHROMIUM, DIGITS, Stroke, chromium, draw, settled

from .conftest import TOKEN, Running, as_file, proxy

Command = Callable[..., Outcome]

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium here")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A browser without a window."""
    with chromium() as one:
        yield one


@pytest.fixture(params=[390, 1280])
def page(browser: Any, server: Running, request: pytest.FixtureRequest) -> Iterator[Any]:
    """The page at the width of a phone and of a desk; a message on the console is an error."""
    page = browser.new_page(viewport={"width": request.param, "height": 844})
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(server.url)
    yield page
    page.close()
    assert said == []


def test_ten_digits_are_read_saved_and_downloaded(
    page: Any, vggnet: Command, digit_model: Path, tmp_path: Path
) -> None:
    """At least nine of ten digits are classified, and the ZIP contains what the network saw.

    `evaluate` reads the ZIP, and so does `train` with two drawings of each digit.
    """
    right = 0
    for label, strokes in DIGITS.items():
        draw(page, strokes)
        right += settled(page) == label
        best = page.locator("#bars .best .name").text_content()
        assert best == page.locator("#answer").text_content()
        assert page.locator("#seen").is_visible()
        page.get_by_role("button", name=f"Save as {label}").click()
        playwright.expect(page.locator("#answer")).to_have_text("?")
    assert right >= 9
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.reload()  # the drawings survive it
    with page.expect_download() as download:
        page.get_by_role("button", name="Download 10 drawings").click()
    download.value.save_as("drawings.zip")
    with zipfile.ZipFile("drawings.zip", "a") as archive:
        assert archive.testzip() is None
        assert archive.namelist() == [f"drawings/{label}/0001.png" for label in DIGITS]
        for name in archive.namelist():
            with Image.open(BytesIO(archive.read(name))) as image:
                assert (image.size, image.mode) == ((28, 28), "L")
                assert np.asarray(image).max() > 200
        found = vggnet("evaluate", digit_model, "--dataset", "drawings.zip", "--json")
        assert found.code == 0, found.err
        assert json.loads(found.out)["count"] == 10
        assert json.loads(found.out)["accuracy"] >= 0.9
        for name in archive.namelist():
            archive.writestr(name.replace("0001", "0002"), archive.read(name))
    small = ("--stages", "8/8", "--hidden", "8", "--epochs", "1", "--threads", "1")
    trained = vggnet("train", "--dataset", "drawings.zip", *small)
    assert trained.code == 0, trained.err
    assert Path("drawings_vggnet.pth").is_file()


def test_a_scribble_is_flagged_and_explained(page: Any) -> None:
    """A grid is called unlike the training images; the button paints the evidence, and stays on."""
    grid: list[Stroke] = [[(x / 8, 0.2), (x / 8, 0.8)] for x in range(2, 7)]
    grid += [[(y, x) for x, y in stroke] for stroke in grid]
    draw(page, grid)
    settled(page)
    playwright.expect(page.locator("#unlike")).to_be_visible()
    plain = page.locator("#seen").get_attribute("src")
    button = page.get_by_role("button", name="Show the evidence")
    button.click()
    playwright.expect(page.locator("#caption")).to_contain_text("orange")
    assert page.locator("#seen").get_attribute("src") != plain
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    button.click()
    assert page.locator("#seen").get_attribute("src") == plain
    button.click()
    page.get_by_role("button", name="Clear").click()
    settled(page)
    playwright.expect(page.locator("#unlike")).to_be_hidden()
    draw(page, DIGITS["7"])
    settled(page)
    playwright.expect(page.locator("#caption")).to_contain_text("orange")


def test_clear_and_undo(page: Any) -> None:
    """Undo removes the last stroke, clear removes all, and the prediction follows."""
    assert page.locator("#undo").is_disabled()
    draw(page, DIGITS["1"])
    assert settled(page) == "1"
    draw(page, [[(0.2, 0.2), (0.8, 0.8), (0.2, 0.8), (0.8, 0.2)]])
    page.get_by_role("button", name="Undo").click()
    assert settled(page) == "1"
    page.get_by_role("button", name="Clear").click()
    playwright.expect(page.locator("#answer")).to_have_text("?")
    playwright.expect(page.locator("#confidence")).to_have_text("Nothing drawn yet")
    assert page.locator("#seen").is_hidden()
    assert page.locator("#clear").is_disabled()


def test_the_keyboard_does_it_all(page: Any) -> None:
    """Without a mouse: draw a 1, save it with its key, undo, clear, download."""
    page.locator("#pad").focus()
    for key, times in (("ArrowUp", 4), (" ", 1), ("ArrowDown", 20), (" ", 1)):
        for _ in range(times):
            page.keyboard.press(key)
    assert settled(page) == "1"
    assert "Prediction 1" in page.locator("#status").text_content()
    page.keyboard.press("1")
    playwright.expect(page.locator("#saved li")).to_have_count(1)
    page.keyboard.press(" ")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("z")
    playwright.expect(page.locator("#undo")).to_be_disabled()
    with page.expect_download():
        page.keyboard.press("d")
    reached = set()
    for _ in range(5):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id"))
    assert {"download", "remove", "discard"} <= reached


def test_a_key_saves_the_drawing_that_it_was_pressed_for(browser: Any, server: Running) -> None:
    """A drawing that was replaced before its answer came is not saved, nor is the new one."""
    page = browser.new_page()  # the console reports the busy server
    page.goto(server.url)
    page.route("**/predict", lambda route: route.fulfill(status=503, json={"detail": "busy"}))
    draw(page, DIGITS["3"])
    page.keyboard.press("3")
    page.keyboard.press("x")
    draw(page, DIGITS["5"])
    page.unroute("**/predict")
    assert settled(page) == "5"
    assert page.locator("#saved li").count() == 0
    assert page.locator("#clear").is_enabled()
    page.close()


def test_digits_are_keys_of_labels_and_not_of_places(page: Any) -> None:
    """With the classes 1, 2 and 3, the key 1 saves as 1; without digits, keys are indices."""
    pixel = b64encode(as_file(np.zeros((1, 1), np.uint8))).decode()

    def answer(names: str) -> Callable[[Any], None]:
        shares = {name: 1 / len(names) for name in names}
        prediction = {"class": names[0], "probability": 0.4, "probabilities": shares}
        return lambda route: route.fulfill(json={"predictions": [prediction], "seen": pixel})

    for names, label in (("123", "1"), ("abc", "b")):
        page.route("**/predict", answer(names))
        draw(page, DIGITS["1"])
        settled(page)
        playwright.expect(page.locator("#size")).to_have_text("1 × 1 pixels")
        page.keyboard.press("1")
        playwright.expect(page.locator("#saved li").last).to_have_text(label)
        page.unroute("**/predict")


def test_single_keys_can_be_switched_off(page: Any) -> None:
    """Then single keys do nothing; Escape and the buttons still work."""
    page.locator("summary").click()
    page.locator("#keys").uncheck()
    draw(page, DIGITS["1"])
    settled(page)
    page.keyboard.press("1")
    page.keyboard.press("x")
    assert page.locator("#clear").is_enabled()
    page.keyboard.press("Escape")
    playwright.expect(page.locator("#clear")).to_be_disabled()
    assert page.locator("#set").is_hidden()


def test_two_tabs_keep_one_set(browser: Any, server: Running) -> None:
    """A drawing saved in one tab appears in the other, and none is lost."""
    context = browser.new_context()
    one, other = context.new_page(), context.new_page()
    for page in (one, other):
        page.goto(server.url)
    for number, page in enumerate((one, other, one), 1):
        page.bring_to_front()
        draw(page, DIGITS["1"])
        settled(page)
        page.get_by_role("button", name="Save as 1").click()
        for tab in (one, other):
            playwright.expect(tab.locator("#saved li")).to_have_count(number)
    context.close()


def test_a_busy_server_is_shown(browser: Any, server: Running) -> None:
    """While the server is busy the page says so, tries again, and shows the answer."""
    page = browser.new_page()
    page.goto(server.url)
    page.route("**/predict", lambda route: route.fulfill(status=503, json={"detail": "busy"}))
    draw(page, DIGITS["7"])
    playwright.expect(page.locator("#confidence")).to_have_text("busy")
    page.unroute("**/predict")
    playwright.expect(page.locator("#answer")).to_have_text("7")
    page.close()


def test_the_page_behind_a_proxy(browser: Any, public: Running) -> None:
    """Under a prefix, with Host rewritten, every file loads and both models answer."""
    with proxy(public, "upstream") as url:
        page = browser.new_page()
        failed: list[str] = []
        page.on("response", lambda one: failed.append(one.url) if one.status >= 400 else None)
        page.on("requestfailed", lambda one: failed.append(one.url))
        page.goto(f"{url}/")
        playwright.expect(page.locator("#model option")).to_have_count(2)
        for name in ("second", "model"):
            page.locator("#model").select_option(name)
            with page.expect_response(f"**/digits/models/{name}/predict"):
                draw(page, DIGITS["7"])
            assert settled(page) == "7"
            page.get_by_role("button", name="Clear").click()
        page.close()
        assert failed == []


def test_the_page_with_a_token(browser: Any, protected: Running) -> None:
    """A browser that was given the token as password loads the page and sends drawings."""
    url = protected.url.replace("0.0.0.0", "127.0.0.1")
    context = browser.new_context(http_credentials={"username": "me", "password": TOKEN})
    page = context.new_page()
    page.goto(url)
    draw(page, DIGITS["7"])
    assert settled(page) == "7"
    context.close()


def test_the_page_in_chinese(browser: Any, server: Running) -> None:
    """A browser that prefers Chinese gets every text in Chinese."""
    context = browser.new_context(locale="zh-CN")
    page = context.new_page()
    page.goto(server.url)
    playwright.expect(page.locator("h1")).to_have_text("写一个数字")
    assert page.evaluate("document.documentElement.lang") == "zh-CN"
    draw(page, DIGITS["1"])
    settled(page)
    playwright.expect(page.locator("#confidence")).to_contain_text("置信度")
    page.get_by_role("button", name="保存为 1").click()
    playwright.expect(page.locator("#download")).to_have_text("下载 1 张图像")
    page.locator("summary").click()
    left = "[...document.querySelectorAll('[data-text]')].map((one) => one.textContent)"
    texts = page.evaluate(left)
    assert len(texts) > 20
    assert [text for text in texts if text.isascii() and text != "API"] == []
    context.close()
