"""The documentation in two languages stays one documentation."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    path.name for path in (ROOT / "docs").glob("*.md") if path.name != "compare-schema.md"
)


def code_blocks(path: Path) -> list[str]:
    """Return a page's code and output blocks without comments, which are translated."""
    text = path.read_text(encoding="utf-8")
    blocks = re.findall(r"^```(?:python|console|text)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [re.sub(r"\s+#.*$", "", block, flags=re.MULTILINE) for block in blocks]


@pytest.mark.parametrize("name", PAGES)
def test_a_translation_has_the_same_code_and_output(name: str) -> None:
    """A page and its Chinese translation show the same commands, code and output."""
    original, translation = ROOT / "docs" / name, ROOT / "docs/zh" / name
    assert code_blocks(translation) == code_blocks(original)


def commands(path: Path) -> list[str]:
    """Return the commands that a README prints, each as an indented line."""
    return re.findall(r"^    (.+)", path.read_text(encoding="utf-8"), re.MULTILINE)


def test_both_readmes_name_the_same_commands() -> None:
    """README.md and README.zh-CN.md print the same commands, in the same order."""
    english = commands(ROOT / "README.md")
    assert english
    assert english == commands(ROOT / "README.zh-CN.md")


def test_the_readme_stays_short() -> None:
    """README.md has at most 130 lines: details belong on a page under docs/."""
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 130


@pytest.mark.parametrize("name", sorted(path.name for path in ROOT.glob("examples/*.ipynb")))
def test_a_notebook_is_executed_and_small(name: str) -> None:
    """Every code cell of an example ran without an error, and names no folder of its author."""
    path = ROOT / "examples" / name
    cells = [
        one
        for one in json.loads(path.read_text(encoding="utf-8"))["cells"]
        if one["cell_type"] == "code"
    ]
    assert all(one["execution_count"] for one in cells)
    assert not [out for one in cells for out in one["outputs"] if out["output_type"] == "error"]
    assert "/src/vggnet" not in path.read_text(encoding="utf-8")
    assert path.stat().st_size < 500_000
