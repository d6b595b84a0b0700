"""Measure how many drawings a second an exported page answers in a browser.

    python benchmarks/page_speed.py mnist_vggnet.html --output benchmarks/results/page_speed

The page is opened from disk in Chromium, without a window. Its own worker gets digits of 280×280
pixels, one after the other, and gives the whole answer (preparation, network and feature maps) or
the preparation alone, in alternating rounds. That includes sending a drawing to
the worker and the answer back, not the painting on the screen.
"""

from __future__ import annotations

import shutil
from base64 import b64encode
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from measuring import build_parser, render_machine, render_spread, write_report
from PIL import Image, ImageOps

from vggnet.data.catalog import CATALOG
from vggnet.data.known import load_test
from vggnet.page.measure import BROWSERS

SIDE = 280
ROUNDS = 15
DIGITS = 20

MEASURE = """\
async ({ side, drawings, rounds }) => {
  const part = (id) => document.getElementById(id).textContent;
  const source = new Blob([part("worker-source")], { type: "text/javascript" });
  const worker = new Worker(URL.createObjectURL(source));
  const ask = (action, argument) => new Promise((done, fail) => {
    worker.onmessage = ({ data }) => (data.error ? fail(new Error(data.error)) : done(data.result));
    worker.postMessage({ id: 0, action, argument });
  });
  await ask("load", JSON.parse(part("model-data")));
  const images = drawings.map((text) => {
    const grey = Uint8Array.from(atob(text), (one) => one.charCodeAt(0));
    const data = new Uint8ClampedArray(4 * grey.length).fill(255);
    grey.forEach((value, at) => data.fill(value, 4 * at, 4 * at + 3));
    return { width: side, height: side, data };
  });
  const times = { predict: [], prepare: [] };
  for (let round = -2; round < rounds; round++) {  // the first two warm up
    for (const action of ["predict", "prepare"]) {
      const started = performance.now();
      for (const image of images) await ask(action, image);
      if (round >= 0) times[action].push((performance.now() - started) / images.length);
    }
  }
  return { ...times, browser: navigator.userAgent };
}
"""


def draw_digits() -> list[npt.NDArray[np.uint8]]:
    """Return dark digits on white, (SIDE, SIDE)."""
    images = load_test(CATALOG["mnist"])[0].images[:DIGITS, 0]
    enlarged = [ImageOps.invert(Image.fromarray(one)).resize((SIDE, SIDE)) for one in images]
    return [np.asarray(one) for one in enlarged]


def main() -> None:
    from playwright.sync_api import sync_playwright

    parser = build_parser(__doc__)
    parser.add_argument("page", type=Path, help="made by vggnet export MODEL --format html")
    options = parser.parse_args()
    drawings = [b64encode(one.tobytes()).decode() for one in draw_digits()]
    browsers = [path for name in BROWSERS if (path := shutil.which(name))]
    if not browsers:
        parser.error(f"needs a browser: {', '.join(BROWSERS)}")
    with sync_playwright() as driver:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = driver.chromium.launch(executable_path=browsers[0], args=arguments)
        page = browser.new_page()
        page.goto(options.page.resolve().as_uri())
        given = {"side": SIDE, "drawings": drawings, "rounds": ROUNDS}
        times: dict[str, Any] = page.evaluate(MEASURE, given)
        browser.close()
    rates = [1000 / one for one in times["predict"]]
    report = f"""\
# Speed of an exported page

{DIGITS} drawings of {SIDE}×{SIDE} pixels in {ROUNDS} rounds after two to warm up, median (least to
most) of the rounds.

| | |
|---|---|
| whole answer, ms | {render_spread(times["predict"], 1)} |
| of which preparation and messages, ms | {render_spread(times["prepare"], 1)} |
| answers a second | {render_spread(rates, 0)} |

- browser: {times["browser"].rpartition(" (KHTML, like Gecko) ")[2]}
{render_machine()}"""
    write_report(options.output, report, times)


if __name__ == "__main__":
    main()
