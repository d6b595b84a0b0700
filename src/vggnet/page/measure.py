"""Run the script of an exported page outside of it, to measure what it computes."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from base64 import b64encode
from dataclasses import dataclass
from html import unescape
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vggnet.errors import ExportError

NODE = ("node", "nodejs")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome", "msedge")

_SECONDS = 600
"""Limit of a run."""

_DRIVER = """\
function classify(part, images) {
  let answer = null;
  const self = { postMessage: (message) => { answer = message; } };
  new Function("self", part("worker-source"))(self);
  const ask = (action, argument) => {
    self.onmessage({ data: { id: 0, action, argument } });
    if (answer.error) throw new Error(answer.error);
    return answer.result;
  };
  ask("load", JSON.parse(part("model-data")));
  return JSON.stringify(ask("classify", images));
}
"""

_IN_NODE = """\
const { readFileSync } = require("node:fs");
const parts = JSON.parse(readFileSync(process.argv[1], "utf8"));
const images = new Uint8Array(readFileSync(process.argv[2]));
process.stdout.write(classify((name) => parts[name], images));
"""

_IN_BROWSER = """\
const part = (id) => document.getElementById(id).textContent;
const images = Uint8Array.from(atob(part("images")), (one) => one.charCodeAt(0));
document.body.innerHTML = "<pre></pre>";
document.querySelector("pre").textContent = classify(part, images);
"""


@dataclass(frozen=True)
class Runtime:
    """A program that runs JavaScript."""

    name: str
    command: Path
    is_browser: bool


def find_runtime() -> Runtime | None:
    """Return Node.js, else a browser that runs without a window, else None."""
    for name, programs in (("Node.js", NODE), ("browser", BROWSERS)):
        for program in programs:
            if path := shutil.which(program):
                shown = name if programs is NODE else program
                return Runtime(shown, Path(path), programs is BROWSERS)
    return None


def classify(
    page: Path, pixels: npt.NDArray[np.uint8], runtime: Runtime
) -> npt.NDArray[np.float64]:
    """Return the probabilities that an exported page gives images, (N, num_classes).

    Args:
        page: The file. Its own script is run.
        pixels: uint8, (N, C, H, W).
        runtime: What runs it.

    Raises:
        ExportError: The script fails.
    """
    parts = read_parts(page.read_text(encoding="utf-8"))
    run = _run_in_browser if runtime.is_browser else _run_in_node
    with tempfile.TemporaryDirectory() as folder:
        try:
            printed = run(runtime.command, parts, pixels.tobytes(), Path(folder))
        except subprocess.TimeoutExpired:
            raise ExportError(
                f"{runtime.command} ran the page's script for more than {_SECONDS} seconds; "
                "nothing was written. Try again while this machine has less to do"
            ) from None
        except OSError as error:
            raise ExportError(f"{runtime.command} cannot run the page's script: {error}") from None
    return np.array(json.loads(printed), np.float64)


def _run_in_node(node: Path, parts: dict[str, str], pixels: bytes, folder: Path) -> str:
    scripts, images = folder / "parts.json", folder / "images"
    scripts.write_text(json.dumps(parts), encoding="utf-8")
    images.write_bytes(pixels)
    return _run([str(node), "-e", _DRIVER + _IN_NODE, str(scripts), str(images)])


def _run_in_browser(browser: Path, parts: dict[str, str], pixels: bytes, folder: Path) -> str:
    parts = {**parts, "images": b64encode(pixels).decode()}
    scripts = [f'<script id="{name}" type="x">{text}</script>' for name, text in parts.items()]
    driver = f"<body><script>{_DRIVER}{_IN_BROWSER}</script></body>"
    page = folder / "measure.html"
    page.write_text("<!doctype html>" + "".join(scripts) + driver, encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}/profile"]
    shown = _run([str(browser), *options, "--dump-dom", page.as_uri()])
    found = re.search(r"<pre>(.+?)</pre>", shown)
    if found is None:
        raise ExportError(f"{browser} did not run the page's script")
    return unescape(found[1])


def read_parts(page: str) -> dict[str, str]:
    """Return the model and the worker's script of a page."""
    pattern = r'<script id="(model-data|worker-source)"[^>]*>(.*?)</script>'
    return dict(re.findall(pattern, page, re.DOTALL))


def _run(command: list[str]) -> str:
    done = subprocess.run(
        command, capture_output=True, check=False, timeout=_SECONDS, encoding="utf-8"
    )
    if done.returncode:
        raise ExportError(f"the page's script failed: {done.stderr.strip()[-500:]}")
    return done.stdout
