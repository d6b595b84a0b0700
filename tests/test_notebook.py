"""What a notebook's user types and sees, in a real kernel of Jupyter."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

import nbformat
from nbclient import NotebookClient

pytestmark = pytest.mark.usefixtures("quick_python")

SETTINGS = "model={'stages': ((8,), (8,)), 'hidden': (8,)}, batch_size=64, threads=1"
STATE = """\
import random, threading, numpy as np, torch, matplotlib, vggnet
def state():
    return [
        hash(random.getstate()), hash(np.random.get_state()[1].tobytes()),
        hash(torch.get_rng_state().numpy().tobytes()), torch.get_default_dtype(),
        torch.get_num_threads(), matplotlib.get_backend(), torch.is_grad_enabled(),
        torch.tensor([1e-40]).mul(1.0).item() != 0, threading.active_count(),
    ]
"""


def run(cells: list[str], folder: Path, allow_errors: bool = False) -> list[list[Any]]:
    """Run cells in one kernel, and return the outputs of each."""
    if sys.platform == "win32":
        asyncio.set_event_loop_policy(asyncio.WindowsSelectorEventLoopPolicy())
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(one) for one in cells])
    client = NotebookClient(
        notebook,
        timeout=300,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        allow_errors=allow_errors,
    )
    client.execute()
    return [cell.outputs for cell in notebook.cells]


def texts(outputs: list[Any]) -> str:
    """Return all that a cell shows as plain text."""
    parts = []
    for one in outputs:
        if one.output_type == "stream":
            parts.append(one.text)
        elif one.output_type == "error":
            parts.append("\n".join(one.traceback))
        else:
            parts.append(one.data.get("text/plain", ""))
    return "".join(parts)


@pytest.fixture
def folder(tmp_path: Path, digits: Path, digit_model: Path) -> Path:
    """A folder with a small dataset, a model and a photograph of a digit."""
    (tmp_path / "digits").symlink_to(digits)
    (tmp_path / "model.pth").write_bytes(digit_model.read_bytes())
    photo = Path(__file__).parent.parent / "docs/digit.jpg"
    (tmp_path / "digit.jpg").write_bytes(photo.read_bytes())
    return tmp_path


@pytest.mark.filterwarnings("ignore")
def test_a_notebook_trains_shows_and_predicts(folder: Path) -> None:
    """Training shows a bar and a curve; results are short; every usual input is predicted."""
    lines = (Path(__file__).parent / "notebook_inputs.txt").read_text().splitlines()
    cells = [
        STATE,
        f"before = state()\nresult = vggnet.train('digits', epochs=2, {SETTINGS})",
        "result",
        # The kernel starts a thread of its own when a cell first writes: threads are counted here.
        f"first = state()\nvggnet.train('digits', epochs=1, {SETTINGS})",
        "assert before[:-1] == first[:-1] and state() == first, (before, first, state())",
        "test = vggnet.load_dataset('mnist').test\ntest",
        "vggnet.load_dataset('digits')",
        "from PIL import Image\nmodel = vggnet.load('model.pth')\nmodel",
        "x = np.asarray(test.images)[:2, 0]\nexpected = model.predict(x).labels",
        *lines,
        "model.evaluate('digits')",
        "result.config",
        "vggnet.train((x.repeat(6, 0), [7, 2] * 6), test=(x, [7, 2]), epochs=1, "
        "reporter=vggnet.Reporter())",
    ]
    outputs = run(cells, folder)
    shown = dict(zip(cells, outputs, strict=True))
    (bar,) = (one for one in shown[cells[1]] if one.output_type != "stream")  # warnings
    html = bar.data["text/html"]
    assert 'value="36" max="36"' in html
    assert "<polyline" in html
    assert "epoch 2 · loss" in bar.data["text/plain"]
    assert len(html) < 3_000
    figures = {"result": 3, cells[5]: 0, cells[6]: 10, "model.evaluate('digits')": 1}
    for cell, images in figures.items():
        (output,) = shown[cell]
        assert output.data["text/plain"].count("\n") == 0
        # An evaluation without errors has no figure of them.
        assert output.data.get("text/html", "").count("<img") in (images, images + ("ev" in cell))
    assert "<table>" in shown[cells[7]][0].data["text/html"]
    for cell in cells:
        assert len(texts(shown[cell])) < 2_000, cell


@pytest.mark.filterwarnings("ignore")
def test_mistakes_and_interruptions_in_a_cell_are_one_line(folder: Path) -> None:
    """A typing error shows no traceback; an interrupted cell saves, and says how to resume."""
    stop = """\
import os, signal, threading, time, pathlib
def interrupt():
    while not pathlib.Path('runs/cut/metrics.csv').exists():  # an epoch has 20 steps
        time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=interrupt).start()
vggnet.train('digits', recipe='article', epochs=5000, name='cut', checkpoint_every='20', """
    cells = [
        "import vggnet",
        "vggnet.train('digits', epoch=2)",
        stop + SETTINGS + ")",
        "import signal\nsignal.getsignal(signal.SIGINT) is signal.default_int_handler",
        "import json\nlast = open('runs/cut/metrics.csv').read().splitlines()[-1]\n"
        "result = vggnet.train(resume='runs/cut', epochs=int(float(last.split(',')[0])) + 2, "
        "reporter=vggnet.Reporter())\nlen(result.epochs)",
    ]
    outputs = run(cells, folder, allow_errors=True)
    assert texts(outputs[1]) == ("ConfigError: unknown setting 'epoch'; did you mean 'epochs'?")
    text = texts([one for one in outputs[2] if one.output_type == "error"])
    assert re.match(r"InterruptedTrainingError: training was interrupted after step \d+; ", text)
    assert "vggnet.train(resume='runs/cut')" in text
    assert "\n" not in text
    assert texts(outputs[3]) == "True"
    assert int(texts(outputs[4])) > 1
