"""The design's promises about the code itself."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import vggnet

PACKAGE = Path(vggnet.__file__).parent

ROOMS = (
    "errors",
    "architectures",
    "config",
    "recipes",
    "data",
    "model",
    "kernels",
    "engine",
    "artifacts",
    "page",
    "inference",
    "run",
    "sklearn",
    "report",
    "compare",
    "study",
    "serve",
    "cli",
)
"""Left to right, as the data flow; a room imports only from those before it and itself."""

ENTRANCES = ("__init__", "__main__")


def _imports(path: Path) -> list[str]:
    """Return the vggnet rooms that a module imports."""
    rooms = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
            if node.module == "vggnet":
                names = [f"vggnet.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        rooms += [name.split(".")[1] for name in names if name.startswith("vggnet.")]
    return [room for room in rooms if room != "__version__"]


def _modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", _modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_left(path: Path) -> None:
    """A module imports only from the rooms that stand before its own."""
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if room in ENTRANCES:
        return
    place = ROOMS.index(room)
    for imported in _imports(path):
        assert ROOMS.index(imported) <= place, f"{room} ► {imported} points right"


def test_every_room_is_on_the_plan() -> None:
    """No module stands outside the order above."""
    found = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in _modules()}
    assert found - set(ENTRANCES) <= set(ROOMS)


def test_the_plan_is_one_that_can_be_broken(tmp_path: Path) -> None:
    """The reader of imports sees every form in which a module can import."""
    source = tmp_path / "sample.py"
    source.write_text(
        "import vggnet.data.idx\n"
        "from vggnet import run\n"
        "def f():\n    from vggnet.cli.train import train\n"
    )
    assert sorted(_imports(source)) == ["cli", "data", "run"]
