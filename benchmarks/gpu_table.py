"""Render the table of GPUs in both READMEs from the folders in benchmarks/results/gpu/.

python benchmarks/gpu_table.py
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
from pathlib import Path
from typing import Any

from measuring import BENCHMARKS

ROOT = BENCHMARKS.parent
RESULTS = BENCHMARKS / "results" / "gpu"
START, END = "<!-- gpu -->", "<!-- /gpu -->"

TEXTS = {
    "README.md": {
        "head": ["GPU", "torch", "`fast`", "`article`", "`best`", "article's script", "checks"],
        "ratio": "{:.1f} times slower",
        "checks": "{ok} ok, {failed} failed",
        "none": "No result of a GPU yet: `python benchmarks/gpu_acceptance.py` takes eight minutes"
        " to make one.",
        "some": "Test accuracy and seconds of training in fp32, without the start of the process:",
    },
    "README.zh-CN.md": {
        "head": ["GPU", "torch", "`fast`", "`article`", "`best`", "文章的脚本", "检查"],
        "ratio": "慢 {:.1f} 倍",
        "checks": "{ok} 项通过，{failed} 项失败",
        "none": "还没有 GPU 上的结果：运行 `python benchmarks/gpu_acceptance.py`，"
        "八分钟即可得到一份。",
        "some": "fp32 训练的测试准确率和用时（秒），不含进程启动：",
    },
}


def render_row(record: dict[str, Any], texts: dict[str, Any]) -> list[str]:
    """Render a run of the acceptance script; what it does not have is a dash."""
    results = record["results"]
    gpu = next((one["gpu"] for one in results if one.get("gpu")), "–")
    trained = {
        one["recipe"]: f"{100 * one['accuracy']:.2f} %, {one['training_seconds']:.1f} s"
        for one in results
        if one.get("recipe") and one["precision"] == "fp32"
    }
    pairs: list[tuple[float, float]] = []
    for one in results:  # the last line has all pairs
        if "article_seconds" in one:
            pairs = list(zip(one["article_seconds"], one["vggnet_seconds"], strict=True))
    latest = {(one["check"], one["what"]): one["status"] for one in results}
    counts = {name: list(latest.values()).count(name) for name in ("ok", "failed")}
    ratio = statistics.median(theirs / ours for theirs, ours in pairs) if pairs else None
    return [
        gpu,
        record["environment"]["torch"],
        *(trained.get(recipe, "–") for recipe in ("fast", "article", "best")),
        texts["ratio"].format(ratio) if ratio else "–",
        texts["checks"].format(**counts),
    ]


def render(records: list[dict[str, Any]], texts: dict[str, Any]) -> str:
    """Render the table, or a sentence that says how to make the first result."""
    if not records:
        return str(texts["none"])
    rows = [texts["head"], ["---"] * len(texts["head"])]
    rows += [render_row(record, texts) for record in records]
    return "\n".join([texts["some"], "", *(f"| {' | '.join(row)} |" for row in rows)])


def replace(text: str, table: str) -> str:
    """Replace what is between the marks."""
    found = re.sub(f"{START}.*{END}", lambda _: f"{START}\n{table}\n{END}", text, flags=re.DOTALL)
    assert START in found
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of result folders")
    options = parser.parse_args()
    paths = sorted(options.results.glob("*/results.json"))
    records = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    for name, texts in TEXTS.items():
        path = ROOT / name
        text = replace(path.read_text(encoding="utf-8"), render(records, texts))
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
