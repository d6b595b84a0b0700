"""Names from elsewhere do not control the terminal, a spreadsheet or a web page."""

from __future__ import annotations

import csv
import io
import json
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from conftest import Outcome
from vggnet.artifacts.export.hub import render_card
from vggnet.artifacts.export.program import EndToEndModel
from vggnet.artifacts.model_card import ModelCard
from vggnet.artifacts.model_file import LoadedModel, save_model
from vggnet.cli.terminal import printable
from vggnet.config import ModelConfig
from vggnet.model.vgg import build_network

Command = Callable[..., Outcome]
HOSTILE = (
    "\x1b[31mred\x1b[0m",
    "=1+1",
    "\u202egnp",
    "a\rb",
    "-2",
    "@x",
    "\x9b2J",
    "\x07",
    "|",
    "8",
)
SMALL = ModelConfig(stages=((4,), (8,)), hidden=(4,))
MEASURED = ModelCard(
    classes=tuple("0123456789"),
    image_shape=(1, 28, 28),
    test={"accuracy": 0.5, "loss": 1.0, "count": 2},
)
SMALL_MODEL = LoadedModel(build_network(SMALL, 0), MEASURED)


def is_harmless(text: str) -> bool:
    """Whether a terminal only prints a text."""
    return all(unicodedata.category(one)[0] != "C" or one == "\n" for one in text)


@given(st.text())
def test_printable_text_is_harmless_and_unambiguous(text: str) -> None:
    """No control character is left, text without any stays, and one line stays one line."""
    shown = printable(text)
    assert is_harmless(shown)
    assert "\n" not in shown
    if text.isprintable():
        assert shown == text


def test_hostile_class_names(vggnet: Command) -> None:
    """Every command that prints class and file names escapes them; JSON keeps them exactly."""
    card = ModelCard(classes=HOSTILE, image_shape=(1, 28, 28))
    save_model(Path("m.pth"), build_network(SMALL, 0), card)
    Path("images").mkdir()
    for name in ("\x1b[2J", "=2+2"):
        Image.fromarray(np.eye(28, dtype=np.uint8) * 255).save(f"images/{name}.png")
    Path("images/\x1b[3J.png").write_bytes(b"no image")
    arguments = ("predict", "m.pth", "images", "--no-prepare", "--top", "10")
    done = vggnet(*arguments)
    assert done.code == 1
    assert is_harmless(done.out + done.err)
    assert r"\x1b[31mred\x1b[0m" in done.out
    assert r"\x1b[3J.png" in done.err
    found = json.loads(vggnet(*arguments, "--format", "json").out)
    assert {one["class"] for one in found[0]["top"]} == set(HOSTILE)
    rows = list(csv.reader(io.StringIO(vggnet(*arguments, "--format", "csv").out)))
    assert rows[0] == ["path", "class", "probability", "unlike_training"]
    assert not any(cell.startswith(("=", "+", "-", "@")) for row in rows for cell in row)
    done = vggnet("evaluate", "m.pth", "--dataset", "images")
    assert is_harmless(done.out + done.err)
    done = vggnet("predict", "\x1b[4J.pth", "images")
    assert done.code == 1
    assert is_harmless(done.err)


def markup(text: str) -> str:
    """Return the characters of a text that Markdown or HTML can take for markup."""
    return "".join(re.findall(r"[`*_\[\]()#|~$@!<\n]", re.sub(r"\\.", "", text)))


@given(st.text(st.sampled_from("<>&/`*_[]()#|~$@!\\\n\r\"'=") | st.characters()))
@example("<img src=x onerror=alert(1)>\n\n# [a](javascript:b) `c` | d")
def test_the_hub_card_escapes_names(name: str) -> None:
    """A dataset's name puts neither HTML nor Markdown into the model card."""
    head, body = render_card(EndToEndModel(SMALL_MODEL, f"n{name}")).split("\n---\n", 1)
    plain = render_card(EndToEndModel(SMALL_MODEL, "n"))
    assert markup(body) == markup(plain.split("\n---\n")[1])
    assert all(json.loads(line.split(": ", 1)[1]) for line in head.split("\n")[1:])
