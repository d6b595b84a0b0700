"""The scripts under benchmarks/ match the package, and their shared code is correct."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import measuring
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SCRIPTS = sorted(set(BENCHMARKS.rglob("*.py")) - {BENCHMARKS / "measuring.py"})


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_every_script_imports_and_has_help(
    script: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All imports of a script exist, and `--help` prints its usage."""
    monkeypatch.setattr(sys, "argv", [script.name, "--help"])
    spec = importlib.util.spec_from_file_location(f"benchmark_{script.stem}", script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    with pytest.raises(SystemExit) as stopped:
        module.main()
    assert stopped.value.code == 0
    assert "usage:" in capsys.readouterr().out


def test_spread_is_median_with_extremes() -> None:
    """Figures are rendered as median (min to max), accuracies as mean ± standard deviation."""
    assert measuring.render_spread([3, 1, 2000], 1) == "3.0 (1.0 to 2,000.0)"
    assert measuring.render_accuracy([0.99, 0.98, 1.0]) == "99.000 ± 1.000 % (n = 3)"
    assert measuring.render_accuracy([0.994]) == "99.40 % (n = 1)"


def test_measures_alternate() -> None:
    """Rounds take one value of each measure in turn."""
    order: list[str] = []
    measures = {name: lambda name=name: float(order.append(name) or len(order)) for name in "ab"}
    assert measuring.interleave(measures, 2) == {"a": [1, 3], "b": [2, 4]}


def test_a_report_names_machine_versions_and_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The command has no folders of absolute paths; the figures are stored next to the report."""
    output = tmp_path / "new" / "speed"
    script = BENCHMARKS / "stress" / "kill_loop.py"
    monkeypatch.setattr(sys, "argv", [str(script), "--output", str(output), "--seed", "1"])
    command = "python benchmarks/stress/kill_loop.py --output .../speed --seed 1"
    text = measuring.render_machine()
    assert "torch " in text
    assert f"by `{command}`" in text
    measuring.write_report(output, text, {"seconds": [1.5]})
    assert capsys.readouterr().out == text + "\n"
    assert output.with_suffix(".md").read_text(encoding="utf-8") == text
    record = json.loads(output.with_suffix(".json").read_text())
    assert (record["command"], record["seconds"]) == (command, [1.5])
    assert record["environment"]["usable_cores"] >= 1
