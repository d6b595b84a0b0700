"""Measure how time and memory grow with images, pixels, depth, classes, steps and processes.

    python benchmarks/growth.py --output benchmarks/results/growth

Each measurement is one call in a process of its own, on one thread, with inputs that are made
before it. Time is CPU time, since other programs may share the machine. Added memory is the peak
during the call minus what the process held before, from Linux's /proc: `ru_maxrss` would include
the peak of the process that started this one. Needs Linux.
"""

from __future__ import annotations

import gc
import json
import math
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from growth_calls import CALLS, Sizes
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator, ScalarFormatter
from measuring import build_parser, render_machine, write_report

from vggnet.artifacts.plots import BLUE, GREY, ORANGE, build_figure, save_figure
from vggnet.engine.device import computing
from vggnet.engine.session import open_session

STEEP = 1.1
"""Exponents above this are marked."""

SECONDS, MIB = 0.2, 32
"""Least time and memory of the largest task from which an exponent follows."""

LONG = 15
"""Seconds after which a case gets no further round: long calls vary less."""

COLORS = (BLUE, ORANGE, "#009E73", "#CC79A7", "#E69F00", "#56B4E9")

IMAGES, PIXELS = [10**3, 10**4, 10**5, 10**6], [28**2, 56**2, 112**2, 224**2]
CLASSES = [10, 100, 1_000, 10_000]
CASES: list[tuple[str, str, list[int], dict[str, int]]] = [
    ("start of an epoch", "images", IMAGES, {}),
    ("evaluation", "images", IMAGES, {"pixels": 8**2}),
    ("reading a folder", "images", [300, 3_000, 30_000], {}),
    ("predicting a folder", "images", [100, 1_000, 10_000], {}),
    ("confusion_matrix.png", "images", IMAGES, {}),
    ("mistakes.png", "images", IMAGES, {}),
    ("test.json", "images", IMAGES, {}),
    ("training, 6 steps", "pixels", PIXELS, {"images": 256}),
    ("evaluation", "pixels", PIXELS, {"images": 256}),
    ("predicting a folder", "pixels", PIXELS, {"images": 256}),
    ("mistakes.png", "pixels", PIXELS, {"images": 256}),
    ("training, 6 steps", "depth", [2, 4, 8, 16, 32], {}),
    ("evaluation", "depth", [2, 4, 8, 16, 32], {}),
    ("training, 6 steps", "classes", CLASSES, {}),
    ("evaluation", "classes", CLASSES, {"images": 10_000}),
    ("reading a folder", "classes", CLASSES, {"images": 20_000}),
    ("predicting a folder", "classes", CLASSES, {}),
    ("calibration", "classes", CLASSES, {"images": 2_000}),
    ("typicality", "classes", [10, 100, 1_000], {"images": 5_000}),
    ("confusion_matrix.png", "classes", CLASSES, {"images": 20_000}),
    ("mistakes.png", "classes", CLASSES, {"images": 10_000}),
    ("test.json", "classes", CLASSES, {"images": 10_000}),
    ("metrics.csv, steps.csv", "steps", IMAGES, {}),
    ("curves.png", "steps", IMAGES, {}),
    ("training, 6 steps", "processes", [1, 2, 4], {"pixels": 56**2}),
]
"""What is called, which size varies, its values, and the sizes that are not `Sizes`' defaults."""

NOTES = """\
What must grow faster, and what bounds it:

- A confusion matrix has classes × classes counts. It is made on request only: `test.json` has it
  for up to 1,000 classes, and `confusion_matrix.png` draws up to 200. Beyond, both have the kinds
  of error, of which there are at most as many as errors.
- An evaluation holds logits and probabilities, 8 bytes × images × classes. Everything that is
  computed from them takes parts of a million values.
- `vggnet data audit`, not measured here, compares all pairs of images for near copies, of at most
  50,000 images.

Left out: folders of a million files and evaluations of a million images of 28×28, which take many
minutes; typicality of 10,000 classes, which a run refuses, since it looks at 5,000 training images;
more processes than twice the cores.
"""


def read_memory(name: str) -> float:
    """Return a figure of /proc/self/status in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(dict(line.split(":", 1) for line in lines)[name].split()[0]) / 1024


def measure(call: str, sizes: Sizes) -> dict[str, float]:
    """Return CPU seconds, MiB of the process at its peak, and how many of them the call added."""
    with tempfile.TemporaryDirectory() as folder, computing("fp32", 1), open_session() as session:
        work = CALLS[call](sizes, Path(folder), session)
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
        before, started = read_memory("VmRSS"), time.process_time()
        work()
        seconds, peak = time.process_time() - started, read_memory("VmHWM")
    return {"seconds": seconds, "peak": peak, "added": peak - before}


def start(call: str, sizes: Sizes) -> dict[str, float]:
    """Measure in new processes, and return the sums over them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, __file__, "--child", call, json.dumps(asdict(sizes))]
    world = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(sizes.processes)}
    environment = {**os.environ, **world, "OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, env={**environment, "RANK": str(rank)})
        for rank in range(sizes.processes)
    ]
    outputs = [one.communicate()[0] for one in running]
    if any(one.returncode for one in running):
        raise SystemExit(f"{call} with {sizes} failed")
    found = [json.loads(one.splitlines()[-1]) for one in outputs]
    return {key: sum(one[key] for one in found) for key in found[0]}


@dataclass(frozen=True)
class Series:
    """The measurements of one case."""

    call: str
    axis: str
    fixed: dict[str, int]
    values: list[int]
    figures: dict[str, list[list[float]]]
    """Seconds, peak and added memory of each value, one figure for each round."""

    def median(self, figure: str) -> list[float]:
        """Return the median of the rounds for each value."""
        return [statistics.median(rounds) for rounds in self.figures[figure]]

    def exponent(self, figure: str) -> float | None:
        """Return the slope at the largest size in log-log; None if it says nothing.

        It starts from the next size that is at most a quarter: between neighbors, noise decides.
        """
        found, least = self.median(figure), MIB if figure == "added" else SECONDS
        start = max(at for at, value in enumerate(self.values) if 4 * value <= self.values[-1])
        if found[-1] < least or found[start] <= 0:
            return None
        return math.log(found[-1] / found[start]) / math.log(self.values[-1] / self.values[start])

    def row(self) -> str:
        """Return a row of the table."""
        sizes = f"{self.values[0]:,} to {self.values[-1]:,} {self.axis}"
        sizes += "".join(f", {count:,} {name}" for name, count in self.fixed.items())
        cells = [self.call, sizes]
        for figure in ("seconds", "added"):
            exponent = self.exponent(figure)
            shown = "–" if exponent is None else f"{exponent:.2f}"
            cells += [" / ".join(f"{value:.3g}" for value in self.median(figure))]
            cells += [f"**{shown}**" if (exponent or 0) > STEEP else shown]
        cells.append(f"{self.median('peak')[-1]:,.0f}")
        return f"| {' | '.join(cells)} |"


def run_case(call: str, axis: str, values: list[int], fixed: dict[str, int], rounds: int) -> Series:
    """Measure all values of a case, in rounds of which none starts after `LONG` seconds."""
    found: list[list[dict[str, float]]] = []
    started = time.perf_counter()
    while not found or (len(found) < rounds and time.perf_counter() - started < LONG):
        found.append([start(call, Sizes(**fixed, **{axis: one})) for one in values])
    figures = {
        key: [[one[at][key] for one in found] for at in range(len(values))] for key in found[0][0]
    }
    series = Series(call, axis, fixed, values, figures)
    print(series.row(), file=sys.stderr, flush=True)
    return series


def plot(path: Path, found: list[Series]) -> None:
    """Draw time and added memory over each size; the grey lines have the exponent 1."""
    sizes = list(dict.fromkeys(one.axis for one in found))
    styles = {
        call: {"color": COLORS[at % 6], "marker": "os"[at // 6], "linestyle": ("-", "--")[at // 6]}
        for at, call in enumerate(CALLS)
    }
    figure = build_figure(2.8 * len(sizes), 8)
    panels = figure.subplots(2, len(sizes), sharex="col", sharey="row")
    for row, (key, least) in zip(panels, {"seconds": 1e-4, "added": 0.1}.items(), strict=True):
        for axes, size in zip(row, sizes, strict=True):
            axes.set(xscale="log", yscale="log", xlabel=size)
            for one in (one for one in found if one.axis == size):
                shown = [max(least, value) for value in one.median(key)]
                axes.plot(one.values, shown, markersize=5, **styles[one.call])
            axes.spines[["top", "right"]].set_visible(False)
            if size in ("depth", "processes"):  # too few for powers of ten: name the values
                axes.set_xticks(next(one.values for one in found if one.axis == size))
                axes.xaxis.set_major_formatter(ScalarFormatter())
                axes.xaxis.set_minor_locator(NullLocator())
    panels[0, 0].set_ylabel("CPU seconds")
    panels[1, 0].set_ylabel("added memory, MiB")
    for axes in panels.flat:
        (left, _), bounds = axes.get_xlim(), axes.get_ylim()
        for power in range(-12, 6):
            ends = (left, 10.0**power), (10 * left, 10.0 ** (power + 1))
            axes.axline(*ends, color=GREY, alpha=0.2, linewidth=0.7, zorder=0)
        axes.set_ylim(bounds)
    handles = [Line2D([], [], label=call, **style) for call, style in styles.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=6, frameon=False)
    save_figure(figure, path)


def render(found: list[Series], rounds: int) -> str:
    """Render the report as Markdown."""
    rows = "\n".join(one.row() for one in found)
    steep = [
        f"- {one.call}, {one.axis}: {what} {exponent:.2f}"
        for one in found
        for figure, what in (("seconds", "time"), ("added", "memory"))
        if (exponent := one.exponent(figure) or 0) > STEEP
    ]
    return f"""\
# How time and memory grow

One call in a process of its own, on one thread, up to {rounds} times (median). Values are given for
each size, the smallest first. The exponent is the slope in log-log between the largest size and the
next one of at most a quarter: 1 is linear. It is left out where the largest task takes less than
{SECONDS} s or adds less than {MIB} MiB, since fixed costs hide it then. Peak: of the whole process,
with its inputs and PyTorch, at the largest size. Processes are summed.

| call | size | CPU s | exponent | added MiB | exponent | peak MiB |
|---|---|---|---|---|---|---|
{rows}

![Time and memory over each size](growth.png)

Exponents above {STEEP}:

{chr(10).join(steep) or "- none"}

{NOTES}
{render_machine(1)}"""


def main() -> None:
    parser = build_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="most rounds of a case")
    parser.add_argument("--only", help="measure the calls with this text in their name")
    parser.add_argument("--child", nargs=2, help="for the script itself")
    options = parser.parse_args()
    if options.child:
        call, sizes = options.child
        print(json.dumps(measure(call, Sizes(**json.loads(sizes)))))
        return
    cases = [case for case in CASES if (options.only or "") in case[0]]
    found = [run_case(*case, options.rounds) for case in cases]
    write_report(options.output, render(found, options.rounds), {"series": [*map(asdict, found)]})
    if options.output:
        plot(options.output.with_suffix(".png"), found)


if __name__ == "__main__":
    main()
