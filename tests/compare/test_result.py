"""A result file loads completely or is refused with a clear message."""

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
    """A saved result loads unchanged."""
    result = make_result(make_row(joules=(1.0, 2.0, 3.0)), sweep=(make_point(8, 1.0),))
    path = tmp_path / "r.json"
    path.write_text(result.model_dump_json())
    assert load_result(path) == result


def test_a_file_of_schema_1_loads(tmp_path: Path) -> None:
    """A file of version 0.1, which has no command, loads."""
    values = json.loads(make_result().model_dump_json())
    del values["command"]
    path = tmp_path / "r.json"
    path.write_text(json.dumps({**values, "schema_version": 1}))
    assert load_result(path).command is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda v: v.update(schema_version=3), "this vggnet reads up to 2"),
        (lambda v: v.pop("schema_version"), "is not a result"),
        (lambda v: v.update(schema_version=True), "is not a result"),
        (lambda v: v["rows"][0].update(seconds=[-1.0, 1.0, 1.0]), "rows.0.seconds.0"),
        (lambda v: v["rows"][0].update(seconds=[float("nan")]), "rows.0.seconds.0"),
        (lambda v: v["rows"][0].update(seconds=[float("inf")]), "rows.0.seconds.0"),
        (lambda v: v["rows"][0].update(seconds=[]), "rows.0.seconds"),
        (lambda v: v["rows"][0].update(seconds=["1"]), "rows.0.seconds.0"),
        (lambda v: v["rows"][0].update(steps=3), "2 step losses for 3 steps"),
        (lambda v: v["rows"][0].update(images=10**6), "more images than the steps can process"),
        (lambda v: v["rows"][0].update(mistakes=[5, 5]), "ascending order without repeats"),
        (lambda v: v["rows"][0].update(mistakes=[1000]), "mistake 1000 of only 1000"),
        (lambda v: v["rows"][0].update(joules=[1.0]), "1 joules for 3 repeats"),
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
    """An impossible value is refused, and the message says where it is."""
    values = json.loads(make_result().model_dump_json())
    change(values)
    path = tmp_path / "r.json"
    path.write_text(json.dumps(values))
    with pytest.raises(ResultFileError, match=re.escape(words)):
        load_result(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is not a result"),
        (b"<!doctype html><html></html>", "is not a result"),
        (b"[1, 2]", "is not a result"),
        (b'{"schema_version": 1,, }', "is damaged"),
        (b'{"schema_version": "1"}', "is not a result"),
        (b"\xff\xfe\x00", "is not a result"),
        (b'{"a":' * 100_000, "damaged"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes, words: str) -> None:
    """HTML, other JSON and binary files are refused as such."""
    path = tmp_path / "r.json"
    path.write_bytes(content)
    with pytest.raises(ResultFileError, match=words):
        load_result(path)


def test_missing_files_are_refused(tmp_path: Path) -> None:
    """A missing file and a folder are refused with the reason."""
    with pytest.raises(ResultFileError, match=r"nowhere\.json: No such file"):
        load_result(tmp_path / "nowhere.json")
    with pytest.raises(ResultFileError, match="cannot read"):
        load_result(tmp_path)


@given(cut=st.integers(1, 3000))
def test_a_truncated_file_is_refused(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    """A file that was cut off anywhere is refused with our own error."""
    content = make_result().model_dump_json().encode()
    path = tmp_path_factory.getbasetemp() / "cut.json"
    path.write_bytes(content[: max(0, len(content) - cut)])
    with pytest.raises(ResultFileError):
        load_result(path)


def test_the_schema_is_documented() -> None:
    """docs/compare-schema.md mentions every field of every record."""
    text = (Path(__file__).parents[2] / "docs" / "compare-schema.md").read_text()
    schema = Result.model_json_schema()
    records = {"Result": schema, **schema["$defs"]}
    for name in records:
        if name.endswith("Config"):
            continue
        for field in records[name].get("properties", {}):
            assert f"`{field}`" in text, f"{name}.{field}"
