"""Declared, tested and documented versions agree."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
WORKFLOW = (ROOT / ".github/workflows/test.yml").read_text(encoding="utf-8")

UNIX_MODULES = {"fcntl", "grp", "pty", "pwd", "resource", "termios", "tty"}
UNIX_NAMES = {"SIGALRM", "SIGHUP", "SIGKILL", "fork", "mkfifo", "openpty"}


def test_every_declared_python_is_in_the_test_matrix() -> None:
    """The classifiers, `requires-python` and the workflow name the same versions."""
    prefix = "Programming Language :: Python :: 3."
    declared = [one.rpartition(" ")[2] for one in PROJECT["classifiers"] if prefix in one]
    found = re.search(r"python: \[(.*)\]", WORKFLOW)
    assert found is not None
    assert re.findall(r'"([\d.]+)"', found[1]) == declared
    assert PROJECT["requires-python"] == f">={declared[0]}"


def test_the_oldest_declared_torch_is_tested() -> None:
    """The lower bound of torch is the one that the workflow and `.ci/run` install."""
    (bound,) = (one for one in PROJECT["dependencies"] if one.startswith("torch>="))
    oldest = bound.removeprefix("torch>=")
    assert f'torch: ["{oldest}.*", newest]' in WORKFLOW
    assert f"'torch=={oldest}.*'" in (ROOT / ".ci/run").read_text(encoding="utf-8")


@pytest.mark.parametrize("folder", ["src", "tests", "benchmarks"])
def test_windows_can_import_every_module(folder: str) -> None:
    """No import and no decorator needs what only Unix has, so tests are at least collected."""
    for path in sorted((ROOT / folder).rglob("*.py")):
        for statement in ast.parse(path.read_text(encoding="utf-8")).body:
            needed: set[str] = set()
            if isinstance(statement, ast.Import):
                needed = UNIX_MODULES & {one.name for one in statement.names}
            for decorator in getattr(statement, "decorator_list", []):
                nodes = [node for node in ast.walk(decorator) if isinstance(node, ast.Attribute)]
                needed |= UNIX_NAMES & {node.attr for node in nodes}
            assert not needed, f"{path} line {statement.lineno}: {needed}"
