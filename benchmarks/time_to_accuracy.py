"""Time whole processes, from start to saved file: the article's script and `vggnet train`.

    python benchmarks/time_to_accuracy.py --article vggnet_cpu.py \
        --output benchmarks/results/time_to_accuracy

The two alternate under this Python, on an otherwise idle machine. The article's script needs
torchvision (`pip install -e '.[bench]'`). It runs unchanged for `--article-epochs` epochs and is
then stopped; its total for ten epochs is extrapolated from the second epoch on. `vggnet train`
runs to its end, with another seed each time. Its first run compiles the kernels into an empty
cache and is timed separately.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from measuring import (
    build_parser,
    render_accuracy,
    render_machine,
    render_spread,
    write_report,
)

from vggnet.data.catalog import CATALOG
from vggnet.data.files import open_file
from vggnet.data.places import BUNDLED
from vggnet.data.sources.idx import read_idx

ARTICLE_EPOCHS = 10


@dataclass(frozen=True)
class ArticleRun:
    """One run of the article's script."""

    epoch_ends: list[float]
    """Seconds from the start of the process to the end of each timed epoch."""
    seconds: float
    """Total of ten epochs, extrapolated from the timed ones."""
    peak_mib: float


@dataclass(frozen=True)
class OurRun:
    """One complete run of `vggnet train`."""

    seed: int
    seconds: float
    training_seconds: float
    accuracy: float
    peak_mib: float


def write_torchvision_files(folder: Path) -> None:
    """Write MNIST where torchvision's `download=True` puts it."""
    raw = folder / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    entry = CATALOG["mnist"]
    for split in (entry.train, entry.test):
        for file, dimensions in zip(split, (3, 1), strict=True):
            array = read_idx(open_file(BUNDLED / "mnist" / file.published_name), dimensions)
            header = bytes((0, 0, 8, array.ndim))
            header += b"".join(side.to_bytes(4, "big") for side in array.shape)
            (raw / file.name).write_bytes(header + array.tobytes())


def run_article(script: Path, folder: Path, epochs: int) -> ArticleRun:
    """Run the script for some epochs and extrapolate to ten."""
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
    """Run `vggnet train` to its end."""
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


def render(
    theirs: list[ArticleRun],
    ours: list[OurRun],
    cold: OurRun,
    article_accuracies: list[float],
) -> str:
    """Render the figures as Markdown."""
    article_seconds = [run.seconds for run in theirs]
    our_seconds = [run.seconds for run in ours]
    ratios = [a / b for a, b in zip(article_seconds, our_seconds, strict=False)]
    memory = [render_spread([run.peak_mib for run in runs], 0) for runs in (theirs, ours)]
    theirs_accuracy = render_accuracy(article_accuracies) if article_accuracies else "not measured"
    return f"""# Time to accuracy

`vggnet train` is **{render_spread(ratios, 1)} times faster** than the article's script: median
(min to max) of {len(ratios)} pairs of whole processes, from start to saved file, alternating.

| | article's script | `vggnet train` |
|---|---|---|
| seconds | {render_spread(article_seconds, 1)} | {render_spread(our_seconds, 1)} |
| of which training | | {render_spread([run.training_seconds for run in ours], 1)} |
| first run, which compiles the kernels | | {cold.seconds:.1f} |
| test accuracy | {theirs_accuracy} | {render_accuracy([run.accuracy for run in ours])} |
| peak memory, MiB | {memory[0]} | {memory[1]} |

Seconds and memory are medians (min to max); accuracy is mean ± standard deviation. We timed
{len(theirs[0].epoch_ends)} of the {ARTICLE_EPOCHS} epochs of the article's script per run and \
extrapolated from its second epoch on. Seeds of `vggnet train`: \
{", ".join(str(run.seed) for run in ours)}.

{render_machine()}"""


def main() -> None:
    parser = build_parser(__doc__)
    parser.add_argument("--article", type=Path, required=True, help="the article's CPU script")
    parser.add_argument("--repeats", type=int, default=5, help="number of timed pairs")
    parser.add_argument("--seeds", type=int, default=5, help="runs of vggnet train, >= repeats")
    parser.add_argument("--article-epochs", type=int, default=2, choices=range(2, 11))
    parser.add_argument(
        "--article-models",
        type=Path,
        nargs="*",
        default=[],
        help="model files of complete runs of the article's script, for its accuracy",
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_torchvision_files(folder)
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
    figures = {
        "article": [asdict(run) for run in theirs],
        "article_accuracies": accuracies,
        "vggnet": [asdict(run) for run in ours],
        "vggnet_first_run": asdict(cold),
    }
    write_report(options.output, render(theirs, ours, cold, accuracies), figures)


if __name__ == "__main__":
    main()
