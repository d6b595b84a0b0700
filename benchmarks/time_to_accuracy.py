"""Whole processes, start to saved file: the article's script against `vggnet train`.

    python benchmarks/time_to_accuracy.py --article ../shared/article/vggnet_cpu.py

Both run under this Python, which needs torchvision for the article's script (`pip install
-e '.[bench]'`), alternately, on a machine that does nothing else. The script runs as it
is; it is watched for `--article-epochs` epochs and then stopped, and the rest of its ten
is reckoned from its second epoch on. `vggnet train` runs whole, with another seed each
time. Its first run, which compiles the kernels into an empty cache, is timed apart.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vggnet.data.catalog import CATALOG
from vggnet.data.idx import read_idx
from vggnet.data.places import BUNDLED

ARTICLE_EPOCHS = 10


@dataclass(frozen=True)
class ArticleRun:
    """One watched run of the article's script."""

    epoch_ends: list[float]
    """Seconds from the start of the process to the end of each watched epoch."""
    seconds: float
    """Reckoned for all ten epochs."""
    peak_mib: float


@dataclass(frozen=True)
class OurRun:
    """One whole run of `vggnet train`."""

    seed: int
    seconds: float
    training_seconds: float
    accuracy: float
    peak_mib: float


def lay_out_data(folder: Path) -> None:
    """Write MNIST as torchvision's `download=True` would leave it."""
    raw = folder / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    entry = CATALOG["mnist"]
    for split in (entry.train, entry.test):
        for name, dimensions in ((split.images, 3), (split.labels, 1)):
            array = read_idx(BUNDLED / "mnist" / f"{name}.gz", dimensions)
            header = bytes((0, 0, 8, array.ndim))
            header += b"".join(side.to_bytes(4, "big") for side in array.shape)
            (raw / name).write_bytes(header + array.tobytes())


def run_article(script: Path, folder: Path, epochs: int) -> ArticleRun:
    """Start the script and watch it for some epochs; reckon what all ten take."""
    command = [sys.executable, "-u", str(script.resolve())]
    started = time.perf_counter()
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    ends: list[float] = []
    for line in process.stdout:
        if re.match(r"Epoch \d+,", line):
            ends.append(time.perf_counter() - started)
        if len(ends) == epochs < ARTICLE_EPOCHS:
            process.terminate()
    _, _, usage = os.wait4(process.pid, 0)
    total = time.perf_counter() - started
    if epochs < ARTICLE_EPOCHS:
        per_epoch = (ends[-1] - ends[0]) / (epochs - 1)
        total = ends[-1] + (ARTICLE_EPOCHS - epochs) * per_epoch
    return ArticleRun(ends, total, usage.ru_maxrss / 1024)


def run_ours(folder: Path, seed: int, cache: Path) -> OurRun:
    """Run `vggnet train` from start to end."""
    command = [sys.executable, "-m", "vggnet", "train", "--seed", str(seed), "--json"]
    environment = {**os.environ, "VGGNET_CACHE_DIR": str(cache)}
    started = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout is not None
    result = json.loads(process.stdout.read())
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    assert status == 0
    training = sum(epoch["seconds"] for epoch in result["epochs"])
    return OurRun(seed, seconds, training, result["test"]["accuracy"], usage.ru_maxrss / 1024)


def evaluate_files(files: list[Path]) -> list[float]:
    """Return the test accuracy of each model file."""
    accuracies = []
    for file in files:
        command = [sys.executable, "-m", "vggnet", "evaluate", str(file), "--json"]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        accuracies.append(json.loads(done.stdout)["accuracy"])
    return accuracies


def describe(values: list[float], digits: int) -> str:
    """Return median, least and most."""
    middle = statistics.median(values)
    return f"{middle:.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def mean_and_spread(shares: list[float]) -> str:
    """Return mean and standard deviation of accuracies in percent."""
    percent = [100 * share for share in shares]
    if len(percent) == 1:
        return f"{percent[0]:.2f} (n = 1)"
    return f"{statistics.mean(percent):.3f} ± {statistics.stdev(percent):.3f} (n = {len(percent)})"


def report(
    theirs: list[ArticleRun],
    ours: list[OurRun],
    cold: OurRun,
    article_accuracies: list[float],
    environment: dict[str, Any],
    command: str,
) -> str:
    """Render the figures as Markdown."""
    article_seconds = [run.seconds for run in theirs]
    our_seconds = [run.seconds for run in ours]
    ratios = [a / b for a, b in zip(article_seconds, our_seconds, strict=False)]
    training = describe([run.training_seconds for run in ours], 1)
    memory = [describe([run.peak_mib for run in runs], 0) for runs in (theirs, ours)]
    watched = len(theirs[0].epoch_ends)
    theirs_accuracy = mean_and_spread(article_accuracies) if article_accuracies else "not measured"
    return f"""# Time to accuracy

`vggnet train` against the article's script, whole processes from start to saved file,
alternating, n = {len(ratios)} pairs: **{statistics.median(ratios):.1f} times faster**
(median of the pairs' ratios; {min(ratios):.1f} to {max(ratios):.1f}).

| | the article's script | `vggnet train` |
|---|---|---|
| seconds, median (least to most) | {describe(article_seconds, 1)} | {describe(our_seconds, 1)} |
| of which training | | {training} |
| first run, kernels compiled into an empty cache | | {cold.seconds:.1f} |
| test accuracy %, mean ± standard deviation | {theirs_accuracy} | \
{mean_and_spread([run.accuracy for run in ours])} |
| peak memory, MiB | {memory[0]} | {memory[1]} |

The article's script was watched for {watched} of its {ARTICLE_EPOCHS} epochs a run; the rest is
reckoned at the pace of its second epoch on. Seeds of `vggnet train`: \
{", ".join(str(run.seed) for run in ours)}.

- machine: {environment["cpu"]}, {environment["cpu_isa"]}, {environment["usable_cores"]} cores, \
{environment["memory_gib"]} GiB
- torch {environment["torch"]}, Python {environment["python"]}, {environment["system"]}
- command: `{command}`
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--article", type=Path, required=True, help="the article's CPU script")
    parser.add_argument("--repeats", type=int, default=5, help="pairs that are timed")
    parser.add_argument("--seeds", type=int, default=5, help="runs of vggnet, at least as many")
    parser.add_argument("--article-epochs", type=int, default=2, choices=range(2, 11))
    parser.add_argument(
        "--article-models", type=Path, nargs="*", default=[], help="files that whole runs saved"
    )
    parser.add_argument("--output", type=Path, help="folder for the report and the raw figures")
    options = parser.parse_args()
    from vggnet.engine.environment import describe_environment

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lay_out_data(folder)
        cache = folder / "cache"
        cold = run_ours(folder, 1000, cache)
        print(f"vggnet train, first run: {cold}", flush=True)
        theirs, ours = [], []
        for seed in range(options.seeds):
            if seed < options.repeats:
                theirs.append(run_article(options.article, folder, options.article_epochs))
                print(theirs[-1], flush=True)
            ours.append(run_ours(folder, seed, cache))
            print(ours[-1], flush=True)
    accuracies = evaluate_files(options.article_models)
    environment = describe_environment()
    command = (
        f"python benchmarks/time_to_accuracy.py --article .../{options.article.name} "
        f"--repeats {options.repeats} --seeds {options.seeds} "
        f"--article-epochs {options.article_epochs}"
    )
    text = report(theirs, ours, cold, accuracies, environment, command)
    print(text)
    if options.output:
        raw = {
            "article": [asdict(run) for run in theirs],
            "article_accuracies": accuracies,
            "vggnet": [asdict(run) for run in ours],
            "vggnet_first_run": asdict(cold),
            "environment": environment,
        }
        options.output.mkdir(parents=True, exist_ok=True)
        (options.output / "time_to_accuracy.md").write_text(text)
        (options.output / "time_to_accuracy.json").write_text(json.dumps(raw, indent=1) + "\n")


if __name__ == "__main__":
    main()
