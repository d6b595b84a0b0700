"""Measure a recipe's test accuracy over several seeds, trained on all training images.

    python benchmarks/best_accuracy.py --output benchmarks/results/best_accuracy
    python benchmarks/best_accuracy.py --dataset fashion-mnist augment.flip=true train.epochs=30

Nothing is selected here; `benchmarks/tune.py` selected the settings on held-out training images.
Each run is `vggnet.train`, evaluated once with the weights after the last step. Repeat the command
to resume an interrupted run. A finished run has a line in OUTPUT.jsonl and is not repeated. The
script writes OUTPUT.md at the end.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from measuring import build_parser, render_accuracy, render_machine
from tune import read_runs, read_settings

import vggnet
from vggnet.config import ModelConfig, differences
from vggnet.engine.environment import describe_environment
from vggnet.recipes import build_config, resolve_config

IGNORED = {
    *("recipe", "data", "train.seed", "train.device", "train.threads", "train.kernels"),
    *("model.in_channels", "model.num_classes", "model.image_size"),
}
"""Settings that may differ between runs, or that the dataset determines."""


def train(seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Train one seed to its end, from its last checkpoint if there is one."""
    name = f"{options.recipe}-{options.dataset}-{seed}"
    folder = options.runs / name
    settings = read_settings(" ".join(options.settings))
    settings.setdefault("train", {}).update(seed=seed, threads=options.threads)
    settings.setdefault("data", {}).update(dataset=options.dataset, data_dir=options.data_dir)
    result = vggnet.train(
        recipe=options.recipe,
        output=options.runs / f"{name}.pth",
        runs=options.runs,
        name=name,
        resume=folder if (folder / "checkpoints").is_dir() else None,
        **settings,
    )
    return {
        "recipe": options.recipe,
        "dataset": options.dataset,
        "seed": seed,
        "accuracy": result.accuracy,
        "loss": result.evaluation.loss,
        "training_seconds": sum(epoch.seconds for epoch in result.epochs),
        "config": result.config.model_dump(mode="json"),
        "environment": describe_environment(),
    }


def read_matching_runs(path: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Read the finished runs, which must have the dataset and settings of the options."""
    runs = read_runs(path)
    layers = {"recipe": options.recipe}, read_settings(" ".join(options.settings))
    wanted = resolve_config(*layers)
    for run in runs:
        changed = differences(build_config(run["config"]), wanted, IGNORED)
        if run["dataset"] != options.dataset or changed:
            sys.exit(f"{path} has runs with another dataset or other settings; change --output")
    return runs


def render(runs: list[dict[str, Any]]) -> str:
    """Render the table of all runs with mean and standard deviation."""
    first = runs[0]
    rows = "".join(
        f"| {run['seed']} | {100 * run['accuracy']:.2f} | {run['training_seconds']:.0f} |\n"
        for run in runs
    )
    model = ModelConfig.model_validate(first["config"]["model"])
    return f"""# Recipe `{first["recipe"]}` on {first["dataset"]}

Test accuracy after the last step, mean ± standard deviation over all seeds that were trained:
**{render_accuracy([run["accuracy"] for run in runs])}**.

| seed | test accuracy % | training seconds |
|---|---|---|
{rows}
- network: {model.name}, {model.depth} layers, {first["config"]["train"]["epochs"]:g} epochs
{render_machine(environment=runs[-1]["environment"])}"""


def main() -> None:
    parser = build_parser(__doc__)
    parser.add_argument("settings", nargs="*", help="override the recipe: train.epochs=30")
    parser.add_argument("--recipe", default="best")
    parser.add_argument("--dataset", default="mnist")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--threads", type=int, help="CPU threads; default: all cores")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder for the runs")
    parser.set_defaults(output=Path("best_accuracy"))
    options = parser.parse_args()
    options.runs.mkdir(parents=True, exist_ok=True)
    lines = options.output.with_suffix(".jsonl")
    done = {run["seed"] for run in read_matching_runs(lines, options)}
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        if seed in done:
            continue
        found = train(seed, options)
        with lines.open("a") as file:
            file.write(json.dumps(found) + "\n")
        print(f"seed {seed}: {100 * found['accuracy']:.2f} %", flush=True)
    options.output.with_suffix(".md").write_text(render(read_matching_runs(lines, options)))


if __name__ == "__main__":
    main()
