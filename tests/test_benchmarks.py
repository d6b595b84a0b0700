"""The scripts under benchmarks/ match the package, and their shared code is correct."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import gpu_acceptance
import gpu_table
import measuring
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
MODULES = {BENCHMARKS / f"{name}.py" for name in ("growth_calls", "measuring", "unlike_digits")}
"""Which scripts import."""
SCRIPTS = sorted(set(BENCHMARKS.rglob("*.py")) - MODULES)


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


def acceptance_results(folder: Path) -> dict[str, object]:
    """Invent what the acceptance script wrote on a GPU; nothing in it was measured."""
    fast = {"recipe": "fast", "precision": "fp32", "accuracy": 0.99, "training_seconds": 1.5}
    pairs = {"article_seconds": [30.0, 20.0, 10.0], "vggnet_seconds": [10.0, 10.0, 10.0]}
    lines = [
        {"check": "environment", "what": "GPU", "gpu": "INVENTED FOR A TEST"},
        {"check": "trainings", "what": "fast, fp32", **fast},
        {"check": "article", "what": "script", "article_seconds": [9.0], "vggnet_seconds": [1.0]},
        {"check": "article", "what": "script", **pairs},
        {"check": "tests", "what": "pytest", "status": "failed"},
    ]
    record = {
        "environment": {"torch": "0.0"},
        "results": [{"status": "ok", "result": "", **one} for one in lines],
    }
    folder.mkdir()
    (folder / "results.json").write_text(json.dumps(record))
    return record


def test_the_table_of_gpus_comes_from_the_results(tmp_path: Path) -> None:
    """A result folder becomes a row; what it lacks is a dash; without any, the text says how."""
    record = acceptance_results(tmp_path / "gpu")
    text = gpu_table.render([record], gpu_table.TEXTS["README.md"])
    row = (
        "| INVENTED FOR A TEST | 0.0 | 99.00 %, 1.5 s | – | – | 2.0 times slower | 3 ok, 1 failed |"
    )
    assert text.splitlines()[-1] == row
    assert "gpu_acceptance.py" in gpu_table.render([], gpu_table.TEXTS["README.md"])


@pytest.mark.parametrize("name", gpu_table.TEXTS)
def test_the_readmes_have_the_table_of_the_results(name: str) -> None:
    """The script has been run since the last result came."""
    paths = sorted(gpu_table.RESULTS.glob("*/results.json"))
    records = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    table = gpu_table.render(records, gpu_table.TEXTS[name])
    text = (BENCHMARKS.parent / name).read_text(encoding="utf-8")
    assert gpu_table.replace(text, table) == text


def test_a_check_that_hangs_ends_at_its_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is killed, and the results before it hung are kept."""
    script = 'import time; print(\'{"what": "first", "status": "ok", "result": ""}\', flush=True)'
    (tmp_path / "gpu_checks.py").write_text(f"{script}; time.sleep(100)")
    monkeypatch.setattr(gpu_acceptance, "BENCHMARKS", tmp_path)
    found = gpu_acceptance.run_check("hangs", [], 2.0)
    assert [one["status"] for one in found] == ["ok", "failed"]
    assert found[-1]["result"] == "stopped after 2 s"
    (tmp_path / "gpu_checks.py").write_text("raise SystemExit(3)")
    (failed,) = gpu_acceptance.run_check("fails", [], 9.0)
    assert failed["result"] == "exit code 3 without a result"


def test_the_result_folder_keeps_its_limits(tmp_path: Path) -> None:
    """The largest files go first, and the results stay."""
    (tmp_path / "results.json").write_bytes(bytes(2000))
    for number in range(9):
        (tmp_path / f"{number}").write_bytes(bytes(number))
    gpu_acceptance.trim(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"results.json", *"012345"}
