"""Select the settings of a recipe on held-out training images.

    python benchmarks/tune.py --seeds 10 --output benchmarks/results/tune_fast.jsonl \
        'train.epochs=1' 'train.epochs=1 train.global_batch_size=64 train.peak_lr=0.003'

Each seed holds out its own 5,000 of the 60,000 training images, trains on the other 55,000 and
evaluates on the 5,000 once, after the last step. The script never reads the test set. A candidate
overrides settings of the recipe. Seeds are the outer loop, so candidates alternate.

`--images 200` trains on so many of the others, and `--dataset` may be a file or a folder.

Each line of the output is one run; runs that have a line are not repeated. `--summary FILE`
prints a file's table.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from vggnet.config import Config
from vggnet.data.batches import Batches
from vggnet.data.catalog import CATALOG
from vggnet.data.dataset import Dataset, LabeledImages, hold_out
from vggnet.data.preprocessing import Preprocessing
from vggnet.data.storage import load_dataset
from vggnet.engine.device import computing
from vggnet.engine.evaluate import Evaluation, evaluate
from vggnet.engine.fit import build_state, fit
from vggnet.engine.processor import usable_cores
from vggnet.engine.session import Session
from vggnet.inference.predict import BATCH_SIZE
from vggnet.kernels import accelerate
from vggnet.model.folding import fold_batch_norm
from vggnet.model.vgg import VGG, build_network
from vggnet.recipes import DEFAULT_RECIPE, resolve_config
from vggnet.run import fit_to_data
from vggnet.run.initial import load_initial
from vggnet.run.preflight import complete_training

HELD_OUT = 5_000
CPU = torch.device("cpu")


def read_settings(text: str) -> dict[str, dict[str, Any]]:
    """Turn "train.epochs=1 model.batch_norm=true" into nested settings."""
    settings: dict[str, dict[str, Any]] = {}
    for pair in text.split():
        key, _, value = pair.partition("=")
        section, _, name = key.partition(".")
        settings.setdefault(section, {})[name] = json.loads(value)
    return settings


def read_candidate(recipe: str, dataset: str, text: str, seed: int) -> Config:
    """Return the recipe's configuration with a candidate's settings and a seed."""
    own = {"data": {"dataset": dataset}, "train": {"seed": seed}}
    return resolve_config({"recipe": recipe}, read_settings(text), own)


def validate(config: Config, dataset: Dataset, options: argparse.Namespace) -> dict[str, float]:
    """Train once; return the metrics on the held-out images and the training seconds."""
    seed = config.train.seed
    train, held_out = hold_out(dataset.train, options.held_out, seed)
    assert held_out is not None
    if options.images:
        train = hold_out(train, options.images, seed)[1] or train
    initial = load_initial(config)
    config = initial.adopt(config, dataset.shape[0]) if initial else config
    config = complete_training(fit_to_data(config, dataset, Session()), len(train), True)

    def batches(part: LabeledImages, size: int) -> Batches:
        preprocessing = Preprocessing.from_config(config)
        return Batches(part, CPU, preprocessing, batch_size=size, augment=config.augment)

    def judge(network: VGG) -> Evaluation:
        folded = accelerate(fold_batch_norm(network.eval()), config.train.kernels)
        return evaluate(folded, batches(held_out, BATCH_SIZE), Session())

    with computing("fp32", config.train.threads or usable_cores()):
        torch.manual_seed(seed)
        network = build_network(config.model, seed)
        pretrained = initial.transfer(network, dataset.classes).pretrained if initial else ()
        assert isinstance(config.train.freeze, int)
        network.freeze(config.train.freeze)
        state = build_state(network, config.train, CPU, Session(), pretrained)
        results = list(fit(state, batches(train, config.train.global_batch_size)))
        found, last = judge(state.eval_model), judge(state.network)
    return {
        "accuracy": found.accuracy,
        "loss": found.loss,
        "calibrated_loss": calibrated_loss(found),
        "last_weights_accuracy": last.accuracy,
        "last_weights_calibrated_loss": calibrated_loss(last),
        "balanced_accuracy": found.balanced_accuracy,
        "train_loss": results[-1].loss,
        "seconds": sum(r.seconds for r in results),
    }


def calibrated_loss(found: Evaluation) -> float:
    """Return the loss at the temperature that minimizes it.

    It ranks candidates with less noise than accuracy, which depends on a dozen images, and does
    not penalize the small logits that label smoothing causes.
    """
    logits, labels = torch.from_numpy(found.logits), torch.from_numpy(found.labels)
    factors = [2 ** (step / 8) for step in range(-16, 25)]
    return min(F.cross_entropy(logits * factor, labels).item() for factor in factors)


def read_runs(path: Path) -> list[dict[str, Any]]:
    """Read the finished runs, one per line."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def summarize(path: Path) -> None:
    """Print each candidate's mean accuracy with its standard error, best first."""
    runs: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for run in read_runs(path):
        on = f"{run['images']} of {run['dataset']}: " if run.get("images") else ""
        runs[on + run["candidate"]].append(run)
    rows = []
    for candidate, group in runs.items():
        percent = [100 * run["accuracy"] for run in group]
        spread = statistics.stdev(percent) if len(percent) > 1 else float("nan")
        seconds = statistics.median(run["seconds"] for run in group)
        rows.append((statistics.mean(percent), spread, len(percent), seconds, candidate))
    print("| settings | n | held-out accuracy % | sd | se | median seconds |")
    print("|---|---|---|---|---|---|")
    for mean, spread, n, seconds, candidate in sorted(rows, reverse=True):
        error = spread / math.sqrt(n)
        print(f"| `{candidate}` | {n} | {mean:.3f} | {spread:.3f} | {error:.3f} | {seconds:.1f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("candidates", nargs="*")
    parser.add_argument("--recipe", default=DEFAULT_RECIPE)
    parser.add_argument("--dataset", default=CATALOG["mnist"].name)
    parser.add_argument("--images", type=int, default=0, help="to train on; 0: all others")
    parser.add_argument("--held-out", type=int, default=HELD_OUT)
    parser.add_argument("--data", type=json.loads, default={}, help='as JSON: {"image_size": 28}')
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=100)
    parser.add_argument("--output", type=Path, default=Path("tune.jsonl"))
    parser.add_argument("--summary", type=Path)
    options = parser.parse_args()
    if options.summary:
        summarize(options.summary)
        return
    dataset = load_dataset(options.dataset, **options.data)
    asked = {"recipe": options.recipe, "dataset": dataset.name, "images": options.images}
    done = {
        (run["candidate"], run["seed"])
        for run in read_runs(options.output)
        if {name: run.get(name, asked[name]) for name in asked} == asked
    }
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        for candidate in options.candidates:
            if (candidate, seed) in done:
                continue
            config = read_candidate(options.recipe, options.dataset, candidate, seed)
            found = validate(config, dataset, options)
            with options.output.open("a") as file:
                line = {**asked, "candidate": candidate, "seed": seed, **found}
                file.write(json.dumps(line) + "\n")
            print(f"{candidate}  seed {seed}  {found}", flush=True)
    summarize(options.output)


if __name__ == "__main__":
    main()
