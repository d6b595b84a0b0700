"""Compare how fast image files are decoded with torchvision's ImageFolder.

    pip install torchvision
    python benchmarks/decoding.py --output benchmarks/results/decoding

Both read the same folder into one uint8 array, with the same number of workers: vggnet with
threads, torchvision with a DataLoader's processes. torchvision resizes to the size that vggnet
fits the image to, without the border that makes it square. Each round measures both, in turn.
CPU seconds are of all threads and processes; they depend less than seconds on what else runs.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from measuring import build_parser, interleave, render_machine, render_spread, write_report
from PIL import Image

from vggnet.data.collection import Request
from vggnet.data.sources import load_collection

WORKERS = min(8, os.cpu_count() or 1)
"""What vggnet uses."""

CASES = (
    ("png", 28, 28, 1_000, (28,)),
    ("jpg", 96, 96, 800, (32, 96)),
    ("jpg", 500, 375, 120, (32, 96, 224)),
    ("jpg", 1600, 1200, 20, (32, 224)),
)
"""Format, width, height, number of files, and the sizes that they are fitted to."""


def make_images(folder: Path, kind: str, width: int, height: int, count: int) -> None:
    """Write smooth noise in two classes."""
    generator = np.random.default_rng(0)
    for number in range(count):
        path = folder / f"class{number % 2}" / f"{number:05}.{kind}"
        path.parent.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(generator.integers(0, 256, (12, 12, 3), np.uint8))
        image.resize((width, height), Image.Resampling.BICUBIC).save(path, quality=85)


def read_with_vggnet(folder: Path, side: int) -> None:
    load_collection(folder, Request(image_size=side, cache=False))


def read_with_torchvision(folder: Path, width: int, height: int) -> None:
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import Compose, PILToTensor, Resize

    transform = Compose([Resize((height, width)), PILToTensor()])
    found = ImageFolder(str(folder), transform)
    images = np.empty((len(found), 3, height, width), np.uint8)
    start = 0
    for batch, _ in DataLoader(found, batch_size=64, num_workers=WORKERS):
        images[start : start + len(batch)] = batch.numpy()
        start += len(batch)


def cpu_seconds() -> float:
    """Return what this process and its ended children have used."""
    import resource  # Windows has no such module

    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def measure(read: Callable[[], None], walls: list[float]) -> float:
    """Return the CPU seconds of a call, and add its seconds to a list."""
    started, used = time.perf_counter(), cpu_seconds()
    read()
    walls.append(time.perf_counter() - started)
    return cpu_seconds() - used


def compare(folder: Path, side: int, fitted: tuple[int, int], rounds: int) -> dict[str, Any]:
    """Measure both in turn, after one round to warm up."""
    walls: dict[str, list[float]] = {"vggnet": [], "torchvision": []}
    readers = {
        "vggnet": lambda: read_with_vggnet(folder, side),
        "torchvision": lambda: read_with_torchvision(folder, *fitted),
    }
    measures = {name: partial(measure, read, walls[name]) for name, read in readers.items()}
    cpu = interleave(measures, rounds + 1)
    for values in (*cpu.values(), *walls.values()):
        del values[0]
    return {"cpu_seconds": cpu, "seconds": walls}


def render_ratios(values: dict[str, list[float]]) -> str:
    """Render torchvision's seconds divided by vggnet's."""
    pairs = zip(values["vggnet"], values["torchvision"], strict=True)
    return render_spread([theirs / ours for ours, theirs in pairs], 2)


def main() -> None:
    parser = build_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    import torchvision

    lines, figures = [], []
    for kind, width, height, count, sides in CASES:
        with tempfile.TemporaryDirectory() as place:
            make_images(Path(place), kind, width, height, count)
            for side in sides:
                fitted = side, round(side * height / width)
                found = compare(Path(place), side, fitted, options.rounds)
                figures.append({"case": [kind, width, height, side], "images": count, **found})
                cpu = found["cpu_seconds"]
                each = [1e6 * statistics.median(values) / count for values in cpu.values()]
                lines.append(
                    f"| {kind.upper()} {width}×{height} | {side} | {each[0]:,.0f} | {each[1]:,.0f} "
                    f"| {render_ratios(cpu)} | {render_ratios(found['seconds'])} |"
                )
                print(lines[-1], flush=True)
    report = f"""\
# Decoding image files, compared with torchvision's ImageFolder

Both read the same files into one uint8 array with {WORKERS} workers. The ratios are torchvision's
(CPU) seconds divided by vggnet's: above 1, vggnet is faster; median (least to most) of
{options.rounds} rounds in turn, after one to warm up. What takes CPU time is µs per image.

| files | fitted to | vggnet, CPU µs | torchvision, CPU µs | ratio of CPU seconds | ratio of \
seconds |
|---|---|---|---|---|---|
{chr(10).join(lines)}

vggnet decodes a JPEG at the smallest of 1/1, 1/2, 1/4 and 1/8 of its size that is at least the size
that it is fitted to. It reads each file's header first, to choose what all images have in common,
and decodes once: a second start finds the images in the cache.

{render_machine()}- torchvision {torchvision.__version__}
"""
    write_report(options.output, report, {"cases": figures})


if __name__ == "__main__":
    main()
