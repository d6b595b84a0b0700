"""Train on images that do not fit the memory, and compare with training from memory.

    python benchmarks/larger_than_memory.py --output benchmarks/results/larger_than_memory

The script makes colour images of 96×96 pixels in two classes as JPEG files. A process of its own
trains on them from the cache, in a memory cgroup of `--limit` GiB where one can be made (Linux,
root). It is started twice: the second start must find the decoded images. Then processes without
a limit train from the cache and from memory, in turn (A B A B). All must end with the same
weights, bit for bit.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from measuring import build_parser, render_machine, render_spread, write_report
from PIL import Image

SIDE, SMOOTH = 96, 12


def make_images(folder: Path, count: int) -> None:
    """Write smooth noise; the second class is brighter at the top."""
    generator = np.random.default_rng(0)
    for number in range(count):
        path = folder / f"class {number % 2}" / f"{number:06}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 256, (SMOOTH, SMOOTH, 3), np.uint8)
        if number % 2:
            pixels[: SMOOTH // 2] |= 128
        Image.fromarray(pixels).resize((SIDE, SIDE)).save(path, quality=80)


def train(folder: str, cache: bool, steps: int) -> dict[str, Any]:
    """Load the images, train, and return figures of this process."""
    import torch

    from vggnet.config import Config
    from vggnet.data.batches import Batches
    from vggnet.data.preprocessing import Preprocessing
    from vggnet.data.storage import load_dataset
    from vggnet.engine.device import computing
    from vggnet.engine.fit import build_state, fit
    from vggnet.engine.processor import usable_cores
    from vggnet.engine.session import Session
    from vggnet.model.vgg import build_network
    from vggnet.recipes import resolve_config
    from vggnet.run import fit_to_data

    started = time.perf_counter()
    dataset = load_dataset(folder, image_size=SIDE, cache=cache)
    loaded = time.perf_counter() - started
    size = 64
    settings = {
        "model": {"stages": [[8], [16]], "hidden": [16]},
        "train": {"global_batch_size": size, "epochs": steps * size / len(dataset.train)},
    }
    config: Config = fit_to_data(resolve_config(settings), dataset, Session())
    cpu = torch.device("cpu")
    with computing("fp32", usable_cores()):
        network = build_network(config.model, config.train.seed)
        state = build_state(network, config.train, cpu, Session())
        batches = Batches(dataset.train, cpu, Preprocessing.from_config(config), batch_size=size)
        ends = [time.perf_counter()]
        for _ in fit(state, batches, lambda *_: ends.append(time.perf_counter())):
            pass
    digest = hashlib.sha256()
    for tensor in network.state_dict().values():
        digest.update(tensor.detach().numpy().tobytes())
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    seconds = ends[-1] - ends[2]  # two steps of warm-up
    return {
        "load_seconds": loaded,
        "images_per_second": (len(ends) - 3) * size / seconds,
        "anonymous_mib": int(status["RssAnon"].split()[0]) / 1024,
        "images": len(dataset.train) + len(dataset.test),
        "weights": digest.hexdigest(),
    }


@contextlib.contextmanager
def memory_group(limit: int) -> Iterator[Path | None]:
    """Make a memory cgroup with a limit in bytes; None where that cannot be done."""
    version_1 = Path("/sys/fs/cgroup/memory")
    parent, name = (
        (version_1, "memory.limit_in_bytes")
        if version_1.is_dir()
        else (Path("/sys/fs/cgroup"), "memory.max")
    )
    group = parent / f"vggnet-benchmark-{os.getpid()}"
    try:
        group.mkdir()
        (group / name).write_text(str(limit))
    except OSError:
        yield None
        return
    try:
        yield group
    finally:
        group.rmdir()


def run(options: Any, folder: Path, cache: bool, group: Path | None = None) -> dict[str, Any]:
    """Run `train` in a process of its own, in a cgroup if one is given."""
    command = [sys.executable, __file__, "--child", str(folder), "--steps", str(options.steps)]
    command += ["--cache"] if cache else []
    enter = (lambda: (group / "cgroup.procs").write_text(str(os.getpid()))) if group else None
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, preexec_fn=enter)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main() -> None:
    parser = build_parser(__doc__)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--limit", type=float, default=1.5, help="GiB of the cgroup")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--child", help="for the script itself")
    parser.add_argument("--cache", action="store_true", help="for the script itself")
    options = parser.parse_args()
    if options.child:
        print(json.dumps(train(options.child, options.cache, options.steps)))
        return
    with tempfile.TemporaryDirectory(dir=".") as place:
        os.environ["VGGNET_CACHE_DIR"] = str(Path(place, "cache").resolve())
        folder = Path(place, "images").resolve()
        make_images(folder, options.images)
        with memory_group(int(options.limit * 2**30)) as group:
            limited = group is not None
            first, second = (run(options, folder, True, group) for _ in range(2))
        mapped, memory = [], []
        for _ in range(options.rounds):
            mapped.append(run(options, folder, True))
            memory.append(run(options, folder, False))
    every = [first, second, *mapped, *memory]
    assert len({one["weights"] for one in every}) == 1, "the weights differ"
    ratios = [
        a["images_per_second"] / b["images_per_second"] for a, b in zip(mapped, memory, strict=True)
    ]
    size = first["images"] * 3 * SIDE * SIDE
    where = f"in a cgroup of {options.limit:g} GiB" if limited else "without a limit (no cgroup)"
    report = f"""\
# Training on images that are larger than the memory

{first["images"]:,} colour images of {SIDE}×{SIDE} pixels, {size / 1e9:.2f} GB as uint8, trained
for {options.steps} steps of 64 images. All {len(every)} runs end with the same weights, bit by bit.

| run | loading, s | images/s | anonymous memory, MiB |
|---|---|---|---|
| first start, {where} | {first["load_seconds"]:.1f} | {first["images_per_second"]:,.0f} \
| {first["anonymous_mib"]:,.0f} |
| second start, {where} | {second["load_seconds"]:.1f} | {second["images_per_second"]:,.0f} \
| {second["anonymous_mib"]:,.0f} |
| from the cache, no limit | {render_spread([one["load_seconds"] for one in mapped], 1)} \
| {render_spread([one["images_per_second"] for one in mapped], 0)} \
| {statistics.median(one["anonymous_mib"] for one in mapped):,.0f} |
| from memory, no limit | {render_spread([one["load_seconds"] for one in memory], 1)} \
| {render_spread([one["images_per_second"] for one in memory], 0)} \
| {statistics.median(one["anonymous_mib"] for one in memory):,.0f} |

Images/s from the cache, relative to from memory, in turn: {render_spread(ratios, 3)}, \
n = {len(ratios)}.

{render_machine()}"""
    write_report(options.output, report, {"runs": every, "ratios": ratios})


if __name__ == "__main__":
    main()
