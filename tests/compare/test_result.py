"""A result file is read back whole, or refused with a sentence."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compare.samples import make_point, make_result, make_row
from vggnet.compare.result import Result, load_result
from vggnet.errors import ResultFileError

Change = Callable[[dict[str, Any]], object]


def test_round_trip(tmp_path: Path) -> None:
    """What is written is what is read."""
    result = make_result(make_row(joules=(1.0, 2.0, 3.0)), sweep=(make_point(8, 1.0),))
    path = tmp_path / "r.json"
    path.write_text(result.model_dump_json())
    assert load_result(path) == result


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda v: v.update(schema_version=2), "newer than this vggnet reads"),
        (lambda v: v.pop("schema_version"), "is no result"),
        (lambda v: v.update(schema_version=True), "is no result"),
        (lambda v: v["rows"][0].update(seconds=[-1.0, 1.0, 1.0]), "rows.0.seconds.0"),
        (lambda v: v["rows"][0].update(seconds=[float("nan")]), "rows.0.seconds.0"),
        (lambda v: v["rows"][0].update(seconds=[float("inf")]), "rows.0.seconds.0"),
        (lambda v: v["rows"][0].update(seconds=[]), "rows.0.seconds"),
        (lambda v: v["rows"][0].update(seconds=["1"]), "rows.0.seconds.0"),
        (lambda v: v["rows"][0].update(steps=3), "2 step losses for 3 steps"),
        (lambda v: v["rows"][0].update(images=10**6), "more images than the steps can hold"),
        (lambda v: v["rows"][0].update(mistakes=[5, 5]), "each once"),
        (lambda v: v["rows"][0].update(mistakes=[1000]), "a mistake numbered 1000"),
        (lambda v: v["rows"][0].update(joules=[1.0]), "1 energies for 3 repeats"),
        (lambda v: v["rows"][0]["setting"].update(device="<b>"), "rows.0.setting.device"),
        (lambda v: v.update(rows=[]), "rows"),
        (lambda v: v.update(surprise=1), "surprise"),
        (lambda v: v.update(options="; rm -rf ~"), "options"),
        (lambda v: v["machine"].update(host="\x1b[31mred"), "machine.host"),
        (lambda v: v["machine"].update(host="a\u202eb"), "machine.host"),
        (lambda v: v["config"].update(recipe="a\x1b[2J"), "config: control characters"),
        (lambda v: v["config"]["data"].update(dataset="a\u202eb"), "config: control characters"),
        (lambda v: v["config"]["train"].update(peak_lr=-1), "config.train.peak_lr"),
    ],
)
def test_nonsense_is_refused(tmp_path: Path, change: Change, words: str) -> None:
    """A value that no measurement gives is named with its place."""
    values = json.loads(make_result().model_dump_json())
    change(values)
    path = tmp_path / "r.json"
    path.write_text(json.dumps(values))
    with pytest.raises(ResultFileError, match=re.escape(words)):
        load_result(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is no result"),
        (b"<!doctype html><html></html>", "is no result"),
        (b"[1, 2]", "is no result"),
        (b'{"schema_version": 1,, }', "is damaged"),
        (b'{"schema_version": "1"}', "is no result"),
        (b"\xff\xfe\x00", "is no result"),
        (b'{"a":' * 100_000, "damaged"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes, words: str) -> None:
    """HTML, another JSON, or no text at all is no result, and says so."""
    path = tmp_path / "r.json"
    path.write_bytes(content)
    with pytest.raises(ResultFileError, match=words):
        load_result(path)


def test_a_missing_file(tmp_path: Path) -> None:
    """A file that is not there, and a folder, are named."""
    with pytest.raises(ResultFileError, match=r"nowhere\.json: No such file"):
        load_result(tmp_path / "nowhere.json")
    with pytest.raises(ResultFileError, match="cannot read"):
        load_result(tmp_path)


@given(cut=st.integers(1, 3000))
def test_a_truncated_file_is_refused(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    """Wherever a copy was cut off, the file is refused as an error for people."""
    content = make_result().model_dump_json().encode()
    path = tmp_path_factory.getbasetemp() / "cut.json"
    path.write_bytes(content[: max(0, len(content) - cut)])
    with pytest.raises(ResultFileError):
        load_result(path)


def test_the_schema_is_documented() -> None:
    """docs/compare-schema.md names every field of every record."""
    text = (Path(__file__).parents[2] / "docs" / "compare-schema.md").read_text()
    schema = Result.model_json_schema()
    records = {"Result": schema, **schema["$defs"]}
    for name in records:
        if name.endswith("Config"):
            continue
        for field in records[name].get("properties", {}):
            assert f"`{field}`" in text, f"{name}.{field}"
