"""Train on images that do not fit the memory, and compare with training from memory.

    python benchmarks/larger_than_memory.py --output benchmarks/results/larger_than_memory

The script makes colour images of 96×96 pixels in two classes as JPEG files. A process of its own
trains on them from the cache, in a memory cgroup of `--limit` GiB where one can be made (Linux,
root). It is started twice: the second start must find the decoded images. Then a process without
a limit trains from the cache and from memory, in turn (A B A B). All must end with the same
weights, bit for bit. The network is as small as it can be, so that reading takes its part.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from measuring import build_parser, render_machine, render_spread, write_report
from PIL import Image

if TYPE_CHECKING:
    from vggnet.data.dataset import Dataset

SIDE, SMOOTH = 96, 12

DIFFERENT = 2_000
"""Images that are made. Files, decoding and training do not depend on whether more are alike."""


def make_images(folder: Path, count: int) -> None:
    """Write smooth noise, the second class brighter at the top; later files are links."""
    generator = np.random.default_rng(0)
    paths = [folder / f"class {number % 2}" / f"{number:06}.jpg" for number in range(count)]
    for number, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        if number >= DIFFERENT:
            path.hardlink_to(paths[number % DIFFERENT])
            continue
        pixels = generator.integers(0, 256, (SMOOTH, SMOOTH, 3), np.uint8)
        if number % 2:
            pixels[: SMOOTH // 2] |= 128
        Image.fromarray(pixels).resize((SIDE, SIDE)).save(path, quality=80)


def train(dataset: Dataset, steps: int) -> tuple[float, str]:
    """Train, and return images per second and the hash of the weights."""
    import torch

    from vggnet.data.batches import Batches
    from vggnet.data.preprocessing import Preprocessing
    from vggnet.engine.device import computing
    from vggnet.engine.fit import build_state, fit
    from vggnet.engine.session import Session
    from vggnet.model.vgg import build_network
    from vggnet.recipes import resolve_config
    from vggnet.run import fit_to_data

    size = 64
    settings = {
        "model": {"stages": [[4], [4]], "hidden": [8]},
        "train": {
            "global_batch_size": size,
            "epochs": steps * size / len(dataset.train),
            "growth_fraction": 0.0,
            "kernels": "torch",
        },
    }
    config = fit_to_data(resolve_config(settings), dataset, Session())
    cpu = torch.device("cpu")
    with computing("fp32", torch.get_num_threads()):
        network = build_network(config.model, config.train.seed)
        state = build_state(network, config.train, cpu, Session())
        batches = Batches(dataset.train, cpu, Preprocessing.from_config(config), batch_size=size)
        ends = [time.perf_counter()]
        for _ in fit(state, batches, lambda *_: ends.append(time.perf_counter())):
            pass
    digest = hashlib.sha256()
    for tensor in network.state_dict().values():
        digest.update(tensor.detach().numpy().tobytes())
    seconds = ends[-1] - ends[2]  # two steps of warm-up
    return (len(ends) - 3) * size / seconds, digest.hexdigest()


def train_once(folder: str, steps: int) -> dict[str, Any]:
    """Load the images from the cache, train, and return figures of this process."""
    from vggnet.data.storage import load_dataset

    started = time.perf_counter()
    dataset = load_dataset(folder, image_size=SIDE, cache=True)
    loaded = time.perf_counter() - started
    speed, weights = train(dataset, steps)
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {
        "load_seconds": loaded,
        "images_per_second": speed,
        "anonymous_mib": int(status["RssAnon"].split()[0]) / 1024,
        "images": len(dataset.train) + len(dataset.test),
        "weights": weights,
    }


def compare(folder: str, steps: int, rounds: int) -> dict[str, Any]:
    """Train from the cache and from memory in turn, after one round to warm up."""
    from vggnet.data.storage import load_dataset

    mapped = load_dataset(folder, image_size=SIDE, cache=True)
    in_memory = replace(mapped.train, images=np.array(mapped.train.images))
    datasets = [mapped, replace(mapped, train=in_memory)]
    runs = [[train(dataset, steps) for dataset in datasets] for _ in range(rounds + 1)]
    return {
        "weights": sorted({weights for both in runs for _, weights in both}),
        "mapped": [both[0][0] for both in runs[1:]],
        "memory": [both[1][0] for both in runs[1:]],
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


def run(folder: Path, *how: object, group: Path | None = None) -> dict[str, Any]:
    """Run this script's `--child` in a process of its own, in a cgroup if one is given."""
    command = [sys.executable, __file__, "--child", str(folder), *map(str, how)]
    enter = (lambda: (group / "cgroup.procs").write_text(str(os.getpid()))) if group else None
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, preexec_fn=enter)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main() -> None:
    parser = build_parser(__doc__)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--limit", type=float, default=1.5, help="GiB of the cgroup")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--child", help="for the script itself")
    parser.add_argument("--compare", action="store_true", help="for the script itself")
    options = parser.parse_args()
    if options.child:
        found = (
            compare(options.child, options.steps, options.rounds)
            if options.compare
            else train_once(options.child, options.steps)
        )
        print(json.dumps(found))
        return
    with tempfile.TemporaryDirectory(dir=".") as place:
        os.environ["VGGNET_CACHE_DIR"] = str(Path(place, "cache").resolve())
        folder = Path(place, "images").resolve()
        make_images(folder, options.images)
        how = ("--steps", options.steps, "--rounds", options.rounds)
        with memory_group(int(options.limit * 2**30)) as group:
            limited = group is not None
            first, second = (run(folder, *how, group=group) for _ in range(2))
        both = run(folder, *how, "--compare")
    assert [first["weights"], *both["weights"]] == 2 * [second["weights"]], "the weights differ"
    ratios = [a / b for a, b in zip(both["mapped"], both["memory"], strict=True)]
    size = first["images"] * 3 * SIDE * SIDE
    where = f"in a cgroup of {options.limit:g} GiB" if limited else "without a limit (no cgroup)"
    rows = [
        f"| {name} start, {where} | {one['load_seconds']:.1f} | {one['images_per_second']:,.0f} "
        f"| {one['anonymous_mib']:,.0f} |"
        for name, one in (("first", first), ("second", second))
    ]
    report = f"""\
# Training on images that are larger than the memory

{first["images"]:,} colour images of {SIDE}×{SIDE} pixels, {size / 1e9:.2f} GB as uint8, trained
for {options.steps} steps of 64 images; {min(DIFFERENT, options.images):,} of them differ.
All {2 * len(ratios) + 4} runs end with the same weights, bit by bit. The first start decodes, the
second finds the decoded images.

| run | loading, s | images/s | anonymous memory, MiB |
|---|---|---|---|
{chr(10).join(rows)}

In one process without a limit, in turn, {len(ratios)} rounds after one to warm up, median (least to
most):

| from | images/s |
|---|---|
| the cache | {render_spread(both["mapped"], 0)} |
| memory | {render_spread(both["memory"], 0)} |
| ratio | {render_spread(ratios, 3)} |

{render_machine()}"""
    write_report(
        options.output, report, {"first": first, "second": second, **both, "ratios": ratios}
    )


if __name__ == "__main__":
    main()
