"""Check everything that only a GPU shows, within eight minutes, and keep the results in a folder.

    python benchmarks/gpu_acceptance.py --article vggnet_gpu.py

It needs no network. Each check runs in a process of its own, with a limit: one that hangs or fails
ends alone. The folder holds at most 8 files and 16 MiB, for `benchmarks/results/gpu/`. A table of
all results is printed last. On a machine without a GPU the GPU's parts are reported as skipped.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from measuring import BENCHMARKS, build_parser, render_machine, write_report

LIMITS = {
    "environment": 40,
    "waits": 50,
    "resume": 60,
    "tests": 60,
    "timeline": 50,
    "trainings": 150,
    "onnx": 60,
    "article": 90,
    "compare": 240,
}
"""The checks in the order of their value, and the seconds that each may take of eight minutes."""
NEED_CUDA = ("waits", "tests", "timeline", "article", "compare")
SMALLEST = 8.0
"""Seconds that a check needs to start; with less, it is left out."""
MOST_FILES, MOST_BYTES = 8, 16 * 2**20


def run_check(name: str, arguments: list[str], seconds: float) -> list[dict[str, Any]]:
    """Run a check in a process, and return its results; at the limit, those so far."""
    command = [sys.executable, str(BENCHMARKS / "gpu_checks.py"), name, *arguments]
    command += ["--seconds", f"{max(1.0, seconds - 5):.0f}"]
    late = False
    with tempfile.TemporaryFile("w+", encoding="utf-8") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.DEVNULL, start_new_session=True
        )
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            late = True
        finally:  # also after Ctrl-C, which the check's own session does not get
            if process.poll() is None:
                end(process)
        output.seek(0)
        lines = [json.loads(one) for one in output if one.startswith("{") and one.endswith("}\n")]
    if late:
        text = f"stopped after {seconds:.0f} s"
        lines.append({"what": name, "status": "failed", "result": text})
    elif not lines:
        text = f"exit code {process.returncode} without a result"
        lines.append({"what": name, "status": "failed", "result": text})
    return [{"check": name, **one} for one in lines]


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and those that it started."""
    if sys.platform == "win32":
        process.kill()
    else:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def trim(folder: Path) -> None:
    """Delete the largest files until the folder keeps its limits, with room for two reports."""
    others = [path for path in folder.iterdir() if path.name != "results.json"]
    files = sorted(others, key=lambda path: path.stat().st_size)
    while len(files) > MOST_FILES - 2 or sum(one.stat().st_size for one in files) > MOST_BYTES:
        files.pop().unlink()


def render(results: list[dict[str, Any]], seconds: float) -> str:
    """Render all results as Markdown."""
    counts = {
        status: sum(one["status"] == status for one in results)
        for status in ("ok", "failed", "skipped")
    }
    # The last line of a figure that was refined.
    latest = {(one["check"], one["what"]): one for one in results}
    rows = [
        f"| {one['what']} | {one['status']} | {str(one['result']).replace('|', '/')} |"
        for one in latest.values()
    ]
    summary = ", ".join(f"{count} {status}" for status, count in counts.items())
    return "\n".join(
        [
            "# GPU acceptance\n",
            render_machine(),
            f"{summary}, in {seconds:.0f} s.\n",
            "| what | | result |",
            "|---|---|---|",
            *rows,
        ]
    )


def main() -> None:
    parser = build_parser(__doc__)
    parser.set_defaults(output=Path("gpu-acceptance"))
    parser.add_argument("--minutes", type=float, default=8.0, help="limit of the whole run")
    parser.add_argument("--device", help="default: cuda if there is one, else cpu")
    parser.add_argument("--article", type=Path, help="the article's GPU script")
    parser.add_argument("--quick", action="store_true", help="a few steps of everything")
    options = parser.parse_args()
    started = time.monotonic()
    folder = options.output
    folder.mkdir(parents=True)  # never into an existing one
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    arguments = ["--device", device, "--folder", str(folder.resolve())]
    arguments += ["--quick"] if options.quick else []
    arguments += ["--article", str(options.article.resolve())] if options.article else []
    results: list[dict[str, Any]] = []
    for name, limit in LIMITS.items():
        left = 60 * options.minutes - (time.monotonic() - started) - 5
        why = "needs CUDA" if name in NEED_CUDA and not device.startswith("cuda") else ""
        why = why or ("no time left" if left < SMALLEST else "")
        if why:
            found = [{"check": name, "what": name, "status": "skipped", "result": why}]
        else:
            found = run_check(name, arguments, min(limit * options.minutes / 8, left))
        results += found
        for one in found:
            print(f"{one['status']:8}{one['what']}: {one['result']}", flush=True)
        (folder / "results.json").write_text(json.dumps({"results": results}, indent=1))
    trim(folder)
    seconds = time.monotonic() - started
    figures = {"device": device, "quick": options.quick, "seconds": seconds, "results": results}
    write_report(folder / "results", render(results, seconds), figures)


if __name__ == "__main__":
    main()
