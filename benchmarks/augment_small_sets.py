"""Which random changes to few images help: crops, brightness, erasing, mixup, CutMix.

    python benchmarks/augment_small_sets.py --output benchmarks/results/augment_small_sets

Each seed draws its own training images of Fashion-MNIST and holds out 5,000 others, on which
every candidate is judged once, after its last step. The test set is not read. Candidates alternate.
Crops with padding are shifts, and mirroring and rotation exist too: these are vggnet's own. The
others are written here, from their papers: random erasing (arXiv 1708.04896), mixup (1710.09412),
CutMix (1905.04899).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from typing import Any

import measuring
import torch
from torch import Tensor
from torch.nn import functional as F

from vggnet.config import Config
from vggnet.data.batches import Batches
from vggnet.data.dataset import Dataset, hold_out
from vggnet.data.preprocessing import Preprocessing
from vggnet.data.storage import load_dataset
from vggnet.engine.device import computing
from vggnet.engine.evaluate import evaluate
from vggnet.engine.fit import build_state
from vggnet.engine.schedule import lr_at
from vggnet.engine.session import Session
from vggnet.inference.predict import BATCH_SIZE
from vggnet.kernels import accelerate
from vggnet.model.vgg import build_network
from vggnet.recipes import resolve_config
from vggnet.run import fit_to_data

CPU = torch.device("cpu")
HELD_OUT = 5_000
Change = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Images (N, C, H, W) in [-1, 1] and probabilities (N, classes) to changed ones."""


def change_brightness(images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Change brightness and contrast by up to 20 %."""
    gain, offset = (torch.rand(2, len(images), 1, 1, 1) - 0.5) * 0.4
    return (images * (1 + gain) + offset).clamp(-1, 1), targets


def erase(images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Fill a square of a tenth of half of the images with gray."""
    inside = _square(images, torch.full((len(images),), 0.1))
    chosen = torch.rand(len(images), 1, 1, 1) < 0.5
    return images.masked_fill(inside & chosen, 0.0), targets


def mix(images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Average each image with another one, by shares from Beta(0.2, 0.2)."""
    share = torch.distributions.Beta(0.2, 0.2).sample((len(images),))
    other = torch.randperm(len(images))
    own = share.view(-1, 1, 1, 1)
    return (
        own * images + (1 - own) * images[other],
        share[:, None] * targets + (1 - share[:, None]) * targets[other],
    )


def cut_and_mix(images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Replace a square of half of the images by that of another one."""
    inside = _square(images, torch.rand(len(images)) * (torch.rand(len(images)) < 0.5))
    other = torch.randperm(len(images))
    share = 1 - inside.float().mean((1, 2, 3))[:, None]
    return (
        torch.where(inside, images[other], images),
        share * targets + (1 - share) * targets[other],
    )


def _square(images: Tensor, area: Tensor) -> Tensor:
    """Return where a square of a share of each image is, (N, 1, H, W)."""
    size = images.shape[-1]
    half = area.sqrt() * size / 2
    middle = torch.rand(2, len(images)) * size
    places = torch.arange(size) + 0.5
    rows, columns = ((places - one[:, None]).abs() < half[:, None] for one in middle)
    inside: Tensor = rows[:, :, None] & columns[:, None, :]
    return inside[:, None]


CANDIDATES: dict[str, tuple[dict[str, Any], Change | None]] = {
    "none": ({}, None),
    "mirroring": ({"flip": True}, None),
    "crop with padding of 2 pixels": ({"shift": 2.0}, None),
    "mirroring, crop": ({"flip": True, "shift": 2.0}, None),
    "mirroring, crop, rotation 10°, scale 0.1": (
        {"flip": True, "shift": 2.0, "rotation": 10.0, "scale": 0.1},
        None,
    ),
    "mirroring, brightness and contrast": ({"flip": True}, change_brightness),
    "mirroring, random erasing": ({"flip": True}, erase),
    "mirroring, mixup": ({"flip": True}, mix),
    "mirroring, CutMix": ({"flip": True}, cut_and_mix),
}


def validate(name: str, dataset: Dataset, images: int, steps: int, seed: int) -> float:
    """Train with a candidate, and return the accuracy on the held-out images."""
    augment, change = CANDIDATES[name]
    own: dict[str, dict[str, Any]] = {
        "model": {"width": 0.5},
        "data": {"dataset": dataset.name},
        "augment": augment,
        "train": {"seed": seed, "threads": 1},
    }
    config: Config = fit_to_data(resolve_config(own), dataset, Session())
    rest, held = hold_out(dataset.train, HELD_OUT, seed)
    _, few = hold_out(rest, images, seed)
    assert held is not None
    assert few is not None
    preprocessing = Preprocessing.from_config(config)
    size = config.train.global_batch_size
    batches = Batches(few, CPU, preprocessing, batch_size=size, augment=config.augment)
    torch.manual_seed(seed)
    state = build_state(build_network(config.model, seed), config.train, CPU, Session())
    state.replica.train()
    while state.step < steps:
        for batch in batches.shuffled(seed, state.step):
            if state.step == steps:
                break
            rate = lr_at((state.step + 0.5) / steps, config.train)
            for group in state.optimizer.param_groups:
                group["lr"] = rate * group["factor"]
            targets = F.one_hot(batch.labels, len(dataset.classes)).float()
            inputs, targets = change(batch.images, targets) if change else (batch.images, targets)
            smoothing = config.train.label_smoothing
            loss = F.cross_entropy(state.replica(inputs), targets, label_smoothing=smoothing)
            state.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            state.optimizer.step()
            state.step += 1
    batches = Batches(held, CPU, preprocessing, batch_size=BATCH_SIZE)
    return evaluate(accelerate(state.network.eval()), batches, Session()).accuracy


def render_rows(found: dict[str, list[float]]) -> list[str]:
    """Return the lines of the table."""
    rows = ["| changes | held-out accuracy % | difference from none |", "|---|---|---|"]
    for name, accuracies in found.items():
        gains = [100 * (one - other) for one, other in zip(accuracies, found["none"], strict=True)]
        error = statistics.stdev(gains) / math.sqrt(len(gains))
        difference = "" if name == "none" else f"{statistics.mean(gains):+.2f} ± {error:.2f}"
        rows.append(f"| {name} | {100 * statistics.mean(accuracies):.2f} | {difference} |")
    return rows


def main() -> None:
    parser = measuring.build_parser(__doc__)
    parser.add_argument("--dataset", default="fashion-mnist")
    parser.add_argument("--images", type=int, default=2_000)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    dataset = load_dataset(options.dataset)
    found: dict[str, list[float]] = {name: [] for name in CANDIDATES}
    with computing("fp32", 1):
        for seed in range(100, 100 + options.seeds):
            for name in CANDIDATES:
                accuracy = validate(name, dataset, options.images, options.steps, seed)
                found[name].append(accuracy)
                print(seed, name, accuracy, flush=True)
    lines = [
        "# Random changes to few images",
        "",
        f"vgg-mini × 0.5 on {options.images:,} images of {dataset.name}, {options.steps} steps of "
        f"the recipe fast, {options.seeds} seeds. The differences are of the same seeds, with "
        "their standard error.",
        "",
        *render_rows(found),
        "",
        measuring.render_machine(1),
    ]
    measuring.write_report(options.output, "\n".join(lines), {"accuracies": found})


if __name__ == "__main__":
    main()
