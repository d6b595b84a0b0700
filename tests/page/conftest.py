"""An exported page and a browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from handwriting import chromium
from vggnet.artifacts.export.program import EndToEndModel
from vggnet.artifacts.model_file import load_model
from vggnet.page.export import render_page


@pytest.fixture(scope="module")
def exported(digit_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with a network that reads digits."""
    model = EndToEndModel(load_model(digit_model))
    path = tmp_path_factory.mktemp("page") / "digits.html"
    path.write_text(render_page(model, True, 8), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A browser without a window."""
    with chromium() as one:
        yield one
