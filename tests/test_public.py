"""The public names of `vggnet`, and the time of importing it."""

from __future__ import annotations

import subprocess
import sys

import pytest

import vggnet


def test_public_names_are_these() -> None:
    """The public names change only on purpose."""
    assert vggnet.__all__ == [
        "Classifier",
        "Config",
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
