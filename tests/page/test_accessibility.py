"""Everybody can read and operate the page: contrast, layout, keyboard, screen reader, motion."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from handwriting import CHROMIUM, DIGITS, draw, settled

pytest.importorskip("playwright", reason="playwright is not installed")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium here")

CONTRAST = """
const parse = (color) => color.match(/[\\d.]+/g).map(Number);
const luminance = (color) => {
  const [red, green, blue] = color.map((value) => {
    const share = value / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
};
const contrast = (one, other) => {
  const [low, high] = [luminance(one), luminance(other)].sort((a, b) => a - b);
  return (high + 0.05) / (low + 0.05);
};
const over = (color, below) => {
  const [red, green, blue, alpha = 1] = parse(color);
  return [red, green, blue].map((value, at) => alpha * value + (1 - alpha) * below[at]);
};
const ground = parse(getComputedStyle(document.body).backgroundColor);
// The color behind a point: the backgrounds of all elements there.
const behind = (x, y) =>
  document.elementsFromPoint(x, y).reverse().reduce(
    (color, element) => over(getComputedStyle(element).backgroundColor, color), ground);
"""
"""The contrast ratio of WCAG 2.2, and what lies under a point of the page."""

MEASURE = f"""() => {{{CONTRAST}
const found = [];
const add = (what, one, other, least) =>
  found.push({{ what, ratio: contrast(one, other), least }});
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {{
  const range = document.createRange();
  range.selectNodeContents(walker.currentNode);
  const box = range.getBoundingClientRect();
  const parent = walker.currentNode.parentElement;
  const text = walker.currentNode.textContent.trim();
  if (!text || box.width === 0 || parent.closest(".hidden, select")) continue;
  const style = getComputedStyle(parent);
  const size = parseFloat(style.fontSize);
  const isLarge = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
  const below = behind(box.left + box.width / 2, box.top + box.height / 2);
  add(text, over(style.color, below), below, isLarge ? 3 : 4.5);
}}
for (const control of document.querySelectorAll("button, select, #pad")) {{
  const box = control.getBoundingClientRect();
  const style = getComputedStyle(control);
  const outside = behind(box.left - 2, box.top + box.height / 2);
  if (parse(style.borderLeftColor)[3] === 0) continue; // it is its text, which is measured above
  add(`border of ${{control.id || control.textContent}}`,
    over(style.borderLeftColor, outside), outside, 3);
}}
for (const bar of document.querySelectorAll("#bars li")) {{
  const [track, fill] = [".track", ".fill"].map((name) =>
    parse(getComputedStyle(bar.querySelector(name)).backgroundColor));
  add(`bar of ${{bar.dataset.label}}`, fill, track, 3);
}}
return found;
}}"""

FOCUSED = f"""() => {{{CONTRAST}
const element = document.activeElement;
if (element === document.body) return null; // behind the last control
const style = getComputedStyle(element);
const ring = style.outlineStyle === "none" ? ground : over(style.outlineColor, ground);
return [element.id || element.textContent || element.ariaLabel, contrast(ring, ground)];
}}"""

SHOW_EVERYTHING = """() => {
  for (const element of document.querySelectorAll("[hidden]:not(#hint, #file)"))
    element.hidden = false;
  for (const button of document.querySelectorAll("button")) button.disabled = false;
  for (const details of document.querySelectorAll("details")) details.open = true;
}"""


@pytest.fixture
def page(browser: Any, exported: Path) -> Iterator[Any]:
    """The page in a window that shows all of it."""
    page = browser.new_page(viewport={"width": 1280, "height": 4000}, reduced_motion="reduce")
    page.goto(exported.as_uri())
    yield page
    page.close()


def fill_page(page: Any) -> None:
    """Save one drawing and leave another one on the page."""
    draw(page, DIGITS["5"])
    settled(page)
    page.keyboard.press("5")
    page.locator("#saved li").wait_for()
    draw(page, DIGITS["3"])
    settled(page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast(page: Any, scheme: str) -> None:
    """Text has a contrast of 4.5, large text and the edges of controls of 3 (WCAG 2.2, AA)."""
    page.emulate_media(color_scheme=scheme)
    measured = page.evaluate(MEASURE)
    fill_page(page)
    page.evaluate(SHOW_EVERYTHING)
    page.locator("#explain").evaluate("(button) => { button.ariaPressed = 'true'; }")
    measured += page.evaluate(MEASURE)
    page.locator("#confidence").evaluate("(text) => text.classList.add('trouble')")
    measured += page.evaluate(MEASURE)
    assert len(measured) > 150
    assert [one for one in measured if one["ratio"] < one["least"]] == []


@pytest.mark.parametrize("width", [320, 390, 1280, 2560])
def test_nothing_is_cut_off_or_stretched(page: Any, width: int) -> None:
    """No page scrolls sideways, and a wide screen does not stretch lines and panels."""
    fill_page(page)
    page.set_viewport_size({"width": width, "height": 900})
    page.evaluate(SHOW_EVERYTHING)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for part in ("header", "main", "footer"):
        assert page.locator(part).bounding_box()["width"] <= 1080


def test_the_tab_key_reaches_every_control(page: Any) -> None:
    """Each has a visible focus ring and a name for screen readers."""
    fill_page(page)
    session = page.context.new_cdp_session(page)
    names = {}
    for node in session.send("Accessibility.getFullAXTree")["nodes"]:
        properties = {one["name"]: one["value"].get("value") for one in node.get("properties", [])}
        if properties.get("focusable") and node["role"]["value"] != "RootWebArea":
            names[node["backendDOMNodeId"]] = node["name"]["value"]
    assert len(names) > 20
    assert all(names.values())
    rings: dict[str, float] = {}
    for _ in range(len(names) + 1):
        page.keyboard.press("Tab")
        if focused := page.evaluate(FOCUSED):
            rings[focused[0]] = focused[1]
    assert len(rings) == len(names)
    assert min(rings.values()) >= 3


def test_reduced_motion(page: Any) -> None:
    """For readers who ask for less motion nothing moves by itself."""
    moving = """[...document.querySelectorAll("*")].filter((element) => {
      const { transitionDuration, animationName } = getComputedStyle(element);
      return transitionDuration !== "0s" || animationName !== "none";
    }).length"""
    assert page.evaluate(moving) == 0
    page.emulate_media(reduced_motion="no-preference")
    assert page.evaluate(moving) > 0
