"""The public names of `vggnet`, and the time of importing it."""

from __future__ import annotations

import doctest
import inspect
import subprocess
import sys
from collections.abc import Sequence
from operator import attrgetter
from pathlib import Path
from types import UnionType
from typing import Annotated, Union, get_args, get_origin, get_type_hints

import pytest

import vggnet
from vggnet import recipes
from vggnet.config import SECTIONS, list_keywords
from vggnet.run.settings import Settings


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digit_model: Path) -> Path:
    """A folder with the files that the examples of the docstrings name."""
    monkeypatch.chdir(tmp_path)
    Path("mnist_vggnet.pth").write_bytes(digit_model.read_bytes())
    Path("digit.jpg").write_bytes((Path(__file__).parent.parent / "docs/digit.jpg").read_bytes())
    return tmp_path


def test_public_names_are_these() -> None:
    """The public names change only on purpose."""
    assert vggnet.__all__ == [
        "Classifier",
        "Config",
        "Dataset",
        "Predictions",
        "Reporter",
        "TrainResult",
        "VggnetError",
        "__version__",
        "load",
        "load_dataset",
        "train",
    ]
    for name in vggnet.__all__:
        assert getattr(vggnet, name) is not None


def _documented() -> dict[str, object]:
    """Return every public name and estimator, and the public methods of the classes."""
    from vggnet.sklearn import VGGClassifier

    methods = [f"Classifier.{name}" for name in ("predict", "evaluate", "export", "save")]
    names = [*vggnet.__all__, *methods, "Dataset.from_arrays"]
    names.remove("__version__")
    return {name: attrgetter(name)(vggnet) for name in names} | {"VGGClassifier": VGGClassifier}


@pytest.mark.parametrize(("name", "documented"), _documented().items(), ids=_documented())
def test_every_docstring_has_an_example_that_runs(
    name: str, documented: object, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the reference shows is what a reader gets, with a model and MNIST at hand."""
    # Each example trains for a few steps; a smaller network makes that quick.
    monkeypatch.setitem(recipes.RECIPES["fast"], "model", {"stages": ((4,), (4,)), "hidden": (4,)})
    parser, runner = doctest.DocTestParser(), doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    docstring = inspect.getdoc(documented) or ""
    test = parser.get_doctest(docstring, {"vggnet": vggnet}, name, None, 0)
    assert test.examples
    report: list[str] = []
    runner.run(test, out=report.append)
    assert not runner.failures, "".join(report)


def test_type_hints_are_visible() -> None:
    """The package is marked as typed, so that mypy and pyright read it."""
    assert (Path(vggnet.__file__).parent / "py.typed").exists()


def _plain_types(annotation: object) -> set[object]:
    """Return the members of a union without constraints; every kind of sequence is the same."""
    if get_origin(annotation) is Annotated:
        return _plain_types(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return set().union(*map(_plain_types, get_args(annotation)))
    return {Sequence if get_origin(annotation) in (tuple, Sequence) else annotation}


def test_type_checkers_know_every_setting() -> None:
    """The keywords of `vggnet.train` have the names and at least the types of the configuration."""
    known = get_type_hints(Settings)
    flat = {keyword: place for keyword, place in list_keywords().items() if keyword != "dataset"}
    assert known.keys() == flat.keys() | SECTIONS.keys()
    for keyword, (section, name) in flat.items():
        held = get_type_hints(SECTIONS[section], include_extras=True)[name]
        assert _plain_types(held) <= _plain_types(known[keyword]), keyword


def test_an_unknown_name_is_an_attribute_error() -> None:
    """Lazy imports do not hide misspelled names."""
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = vggnet.trian  # type: ignore[attr-defined]


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["--version"]])
def test_help_does_not_import_torch(arguments: list[str]) -> None:
    """Help is fast because it imports neither torch nor matplotlib nor NumPy."""
    script = (
        "import sys\n"
        f"sys.argv = ['vggnet', *{arguments!r}]\n"
        "from vggnet.cli import main\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code\n"
        "heavy = {'torch', 'numpy', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
