"""Ten digits as a hand draws them, and a browser to draw them in."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from math import cos, radians, sin
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")

Stroke = list[tuple[float, float]]
"""Points, as shares of the pad's side."""


def arc(x: float, y: float, rx: float, ry: float, start: float, stop: float) -> Stroke:
    """Walk an ellipse around (x, y) from one angle to another; 0 is right, 90 is down."""
    steps = 12
    angles = [radians(start + (stop - start) * step / steps) for step in range(steps + 1)]
    return [(x + rx * cos(angle), y + ry * sin(angle)) for angle in angles]


DIGITS: dict[str, list[Stroke]] = {
    "0": [arc(0.5, 0.5, 0.18, 0.28, -80, 285)],
    "1": [[(0.4, 0.32), (0.46, 0.28), (0.52, 0.2), (0.51, 0.5), (0.5, 0.8)]],
    "2": [
        [*arc(0.49, 0.36, 0.16, 0.16, 200, 395), (0.5, 0.6), (0.34, 0.77), (0.5, 0.76), (0.7, 0.77)]
    ],
    "3": [[*arc(0.48, 0.35, 0.15, 0.14, 210, 440), *arc(0.48, 0.64, 0.17, 0.16, -80, 150)]],
    "4": [
        [(0.4, 0.22), (0.36, 0.36), (0.32, 0.53), (0.5, 0.54), (0.72, 0.52)],
        [(0.61, 0.25), (0.6, 0.5), (0.59, 0.8)],
    ],
    "5": [
        [(0.39, 0.24), (0.37, 0.36), (0.36, 0.46), *arc(0.47, 0.62, 0.18, 0.18, -110, 140)],
        [(0.39, 0.24), (0.52, 0.24), (0.66, 0.22)],
    ],
    "6": [
        [(0.58, 0.2), (0.46, 0.33), (0.38, 0.5), *arc(0.5, 0.64, 0.14, 0.15, 180, -180)],
    ],
    "7": [[(0.32, 0.26), (0.5, 0.25), (0.68, 0.24), (0.6, 0.42), (0.52, 0.6), (0.45, 0.8)]],
    "8": [
        [*arc(0.5, 0.35, 0.13, 0.14, 20, -270), *arc(0.5, 0.645, 0.16, 0.155, -90, 270)],
        arc(0.5, 0.35, 0.13, 0.14, -10, 100),
    ],
    "9": [
        [*arc(0.49, 0.37, 0.15, 0.15, -20, -370), (0.63, 0.5), (0.6, 0.66), (0.57, 0.8)],
    ],
}


@contextmanager
def chromium() -> Iterator[Any]:
    """Run a browser without a window."""
    from playwright.sync_api import sync_playwright

    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


def draw(page: Any, strokes: list[Stroke]) -> None:
    """Draw with the mouse."""
    page.locator("#pad").scroll_into_view_if_needed()
    box = page.locator("#pad").bounding_box()
    for stroke in strokes:
        points = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in stroke]
        page.mouse.move(*points[0])
        page.mouse.down()
        for point in points[1:]:
            page.mouse.move(*point)
        page.mouse.up()


def settled(page: Any) -> str:
    """Return the answer once it belongs to the finished drawing."""
    page.locator("#reading[aria-busy=false]").wait_for()
    answer: str = page.locator("#answer").text_content()
    return answer
