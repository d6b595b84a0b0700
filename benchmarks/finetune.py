"""Fine-tuning a network of another dataset against training from scratch, on few images.

    python benchmarks/finetune.py --output benchmarks/results/finetune

Each seed draws its own 10, 50 and 200 training images of each class. From them, the recipe
`fast` trains a network from initial weights, and the recipe `finetune` one that starts from a
network trained on all images of another set. Both take the same number of steps and are tested on
the whole test set. They alternate, and their time is that of the CPU, training only.

Then it measures how much of a step is saved where the convolutions are frozen.

scikit-learn's digits (UCI) are 8 pixels wide, and enlarged to 28. They have no test set, and no
200 images of each class: a quarter is held out, and the largest size is all others.
"""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import measuring
import numpy as np
import torch

from vggnet.config import Config
from vggnet.data.batches import Batches
from vggnet.data.dataset import Dataset, LabeledImages
from vggnet.data.preprocessing import Preprocessing
from vggnet.data.storage import load_dataset
from vggnet.engine.device import computing
from vggnet.engine.evaluate import evaluate
from vggnet.engine.fit import build_state, fit
from vggnet.engine.session import Session
from vggnet.inference.predict import BATCH_SIZE
from vggnet.kernels import accelerate
from vggnet.model.transfer import transfer_weights
from vggnet.model.vgg import VGG, build_network
from vggnet.recipes import resolve_config
from vggnet.run import fit_to_data
from vggnet.run.preflight import complete_training

SOURCES = {"mnist": "fashion-mnist", "fashion-mnist": "mnist", "digits": "mnist"}
"""Each set, and the set that its pretrained network has seen."""

SIZES = (10, 50, 200)
T_95 = 2.776
"""Of Student's distribution with four degrees of freedom: five seeds."""
CPU = torch.device("cpu")


Start = tuple[VGG, tuple[str, ...]]
"""A trained network and the names of its classes."""


@dataclass(frozen=True)
class Run:
    """One training."""

    accuracy: float
    seconds: float


def load_digits() -> Dataset:
    """Load scikit-learn's digits, enlarged to 28 pixels, a quarter of them as the test set."""
    from sklearn.datasets import load_digits as load  # type: ignore[import-untyped]

    found = load()
    order = np.random.default_rng(0).permutation(len(found.target))
    is_test = np.zeros(len(order), bool)
    is_test[order[: len(order) // 4]] = True
    pixels = (found.images * (255 / 16)).round().astype(np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "digits.npz"
        np.savez(
            path,
            x_train=pixels[~is_test],
            y_train=found.target[~is_test],
            x_test=pixels[is_test],
            y_test=found.target[is_test],
        )
        return load_dataset(path, image_size=28)


def draw(train: LabeledImages, of_each: int, seed: int) -> LabeledImages:
    """Draw so many training images of each class, or all that there are."""
    order = np.random.default_rng(seed).permutation(len(train))
    labels = train.labels[order]
    chosen = [order[labels == label][:of_each] for label in range(train.num_classes)]
    return train.take(np.sort(np.concatenate(chosen)), train.source)


def build_batches(config: Config, examples: LabeledImages, size: int) -> Batches:
    """Return preprocessed batches."""
    return Batches(examples, CPU, Preprocessing.from_config(config), batch_size=size)


def train(
    recipe: str,
    dataset: Dataset,
    examples: LabeledImages,
    seed: int,
    start: Start | None,
    width: float,
) -> tuple[VGG, float]:
    """Train a network, and return it with the CPU seconds."""
    own = {
        "model": {"width": width},
        "data": {"dataset": dataset.name},
        "train": {"seed": seed, "threads": 1},
    }
    config = fit_to_data(resolve_config({"recipe": recipe}, own), dataset, Session())
    config = complete_training(config, len(examples), False)
    network, pretrained = build_network(config.model, seed), tuple[str, ...]()
    if start is not None:
        pretrained = transfer_weights(*start, network, dataset.classes).pretrained
    assert isinstance(config.train.freeze, int)
    network.freeze(config.train.freeze)
    state = build_state(network, config.train, CPU, Session(), pretrained)
    batches = build_batches(config, examples, config.train.global_batch_size)
    began = time.process_time()
    for _ in fit(state, batches):
        pass
    return network, time.process_time() - began


def judge(network: VGG, dataset: Dataset, width: float) -> float:
    """Return the accuracy on the test set."""
    config = fit_to_data(resolve_config({"model": {"width": width}}), dataset, Session())
    replica = accelerate(network.eval())
    return evaluate(replica, build_batches(config, dataset.test, BATCH_SIZE), Session()).accuracy


def render_mean(values: list[float], signed: bool = False) -> str:
    """Render fractions as their mean and its 95 % interval, in percent."""
    percent = [100 * value for value in values]
    half = T_95 * statistics.stdev(percent) / math.sqrt(len(percent))
    return f"{statistics.mean(percent):{'+' if signed else ''}.2f} ± {half:.2f}"


def render_rows(runs: dict[tuple[str, int, str], list[Run]]) -> Iterator[str]:
    """Yield the lines of the table."""
    yield (
        "| images of | training images | from scratch % | from | fine-tuned % | difference "
        "| CPU time, ratio |"
    )
    yield "|---|---|---|---|---|---|---|"
    for name, count, recipe in runs:
        if recipe != "finetune":
            continue
        tuned, scratch = runs[name, count, "finetune"], runs[name, count, "fast"]
        pairs = list(zip(tuned, scratch, strict=True))
        gains = [one.accuracy - other.accuracy for one, other in pairs]
        ratios = [one.seconds / other.seconds for one, other in pairs]
        yield (
            f"| {name} | {count:,} | {render_mean([one.accuracy for one in scratch])} "
            f"| {SOURCES[name]} | {render_mean([one.accuracy for one in tuned])} "
            f"| {render_mean(gains, signed=True)} | {measuring.render_spread(ratios, 2)} |"
        )


def measure_freezing(dataset: Dataset, rounds: int = 7, steps: int = 20) -> dict[str, list[float]]:
    """Return the CPU seconds of some steps of vgg-mini, with frozen convolutions and without."""
    examples = dataset.train.take(np.arange(96 * steps), "some images")
    settings = {"train": {"epochs": 1, "threads": 1, "growth_fraction": 0.0}}
    config = fit_to_data(resolve_config({"recipe": "fast"}, settings), dataset, Session())

    def measure(frozen: int) -> float:
        network = build_network(config.model, 0)
        network.freeze(frozen)
        state = build_state(network, config.train, CPU, Session())
        began = time.process_time()
        for _ in fit(state, build_batches(config, examples, 96)):
            pass
        return time.process_time() - began

    return measuring.interleave(
        {"all layers": lambda: measure(0), "features frozen": lambda: measure(4)}, rounds
    )


def main() -> None:
    parser = measuring.build_parser(__doc__)
    parser.add_argument("--width", type=float, default=0.5)
    parser.add_argument("--seeds", type=int, choices=[5], default=5)
    options = parser.parse_args()
    datasets = {name: load_dataset(name) for name in ("mnist", "fashion-mnist")}
    datasets["digits"] = load_digits()
    runs: dict[tuple[str, int, str], list[Run]] = defaultdict(list)
    with computing("fp32", 1):
        starts: dict[str, Start] = {}
        for name in sorted(set(SOURCES.values())):
            source = datasets[name]
            network, _ = train("fast", source, source.train, 0, None, options.width)
            starts[name] = network, source.classes
        for seed in range(options.seeds):
            for name, dataset in datasets.items():
                for of_each in SIZES:
                    examples = draw(dataset.train, of_each, seed)
                    for recipe, start in (("fast", None), ("finetune", starts[SOURCES[name]])):
                        network, seconds = train(
                            recipe, dataset, examples, seed, start, options.width
                        )
                        run = Run(judge(network, dataset, options.width), seconds)
                        place = len(dataset.classes) * of_each
                        runs[name, min(place, len(dataset.train)), recipe].append(run)
                        print(name, len(examples), recipe, seed, run, flush=True)
        freezing = measure_freezing(datasets["mnist"])
    ratios = [
        one / other
        for one, other in zip(freezing["features frozen"], freezing["all layers"], strict=True)
    ]
    text = "\n".join(
        [
            "# Fine-tuning against training from scratch",
            "",
            f"vgg-mini × {options.width:g} at 28 pixels. Test accuracy of {options.seeds} seeds: "
            "mean ± half of its 95 % interval (Student's t). A seed draws its own training images; "
            "the difference is that of pairs with the same images and seed. The time is the CPU's "
            "for training: median (min to max) of the pairs. Digits of scikit-learn have the "
            "classes of MNIST, so that the last layer is kept too; elsewhere it starts anew.",
            "",
            *render_rows(runs),
            "",
            "With `--freeze features`, a step of vgg-mini takes "
            f"{measuring.render_spread(ratios, 2)} times the CPU time (pairs of 20 steps, "
            f"interleaved, n = {len(ratios)}).",
            "",
            measuring.render_machine(1),
        ]
    )
    figures = {
        f"{name}, {count}, {recipe}": [[one.accuracy, one.seconds] for one in group]
        for (name, count, recipe), group in runs.items()
    }
    measuring.write_report(options.output, text, {"runs": figures, "freezing": freezing})


if __name__ == "__main__":
    main()
