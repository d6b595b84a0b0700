"""Train a recipe on all training images over several seeds; look once at the test set.

    python benchmarks/best_accuracy.py --output benchmarks/results/best_accuracy
    python benchmarks/best_accuracy.py --dataset fashion-mnist augment.flip=true train.epochs=30

Nothing is chosen here: `benchmarks/tune.py` did that on held-out training images. Each
run is `vggnet.train` itself, judged by the weights that it saves after its last step. A run
that was cut short is gone on with when the command is given again, and a finished run has
its line in OUTPUT.jsonl and is not done again. OUTPUT.md is written at the end.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import sys
from pathlib import Path
from typing import Any

from tune import read_settings

import vggnet
from vggnet.config import ModelConfig, differences
from vggnet.engine.environment import describe_environment
from vggnet.recipes import build_config, resolve_config

FREE = {
    *("recipe", "data", "train.seed", "train.device", "train.threads", "train.kernels"),
    *("model.in_channels", "model.num_classes", "model.image_size"),
}
"""Settings that differ from run to run, or that the data decide."""


def train(seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Train one seed to its end, from its last checkpoint if it has one."""
    name = f"{options.recipe}-{options.dataset}-{seed}"
    folder = options.runs / name
    settings = read_settings(" ".join(options.settings))
    settings.setdefault("train", {}).update(seed=seed, threads=options.threads)
    settings.setdefault("data", {}).update(dataset=options.dataset, data_dir=options.data_dir)
    result = vggnet.train(
        options.recipe,
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


def read_runs(path: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Read what is there so far: one run a line, all of the training that is asked for."""
    runs = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    layers = {"recipe": options.recipe}, read_settings(" ".join(options.settings))
    wanted = resolve_config(*layers)
    for run in runs:
        changed = differences(build_config(run["config"]), wanted, FREE)
        if run["dataset"] != options.dataset or changed:
            sys.exit(f"{path} is of another dataset or other settings; name another --output")
    return runs


def report(runs: list[dict[str, Any]], command: str) -> str:
    """Write the table of all runs, and their mean and spread."""
    shares = [100 * run["accuracy"] for run in runs]
    spread = f" ± {statistics.stdev(shares):.3f}" if len(shares) > 1 else ""
    first, environment = runs[0], runs[-1]["environment"]
    rows = [
        f"| {run['seed']} | {share:.2f} | {run['training_seconds']:.0f} |"
        for run, share in zip(runs, shares, strict=True)
    ]
    model = ModelConfig.model_validate(first["config"]["model"])
    return f"""# The recipe `{first["recipe"]}` on {first["dataset"]}

Test accuracy after the last step, mean ± standard deviation, n = {len(runs)} seeds:
**{statistics.mean(shares):.3f}{spread} %**. Every seed that was trained is in the table.

| seed | test accuracy % | seconds of training |
|---|---|---|
{chr(10).join(rows)}

- network: {model.name}, {model.depth} layers, {first["config"]["train"]["epochs"]:g} epochs
- machine: {environment["cpu"]}, {environment["cpu_isa"]}, {environment["usable_cores"]} cores
- torch {environment["torch"]}, Python {environment["python"]}, {environment["system"]}
- command: `{command}`
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("settings", nargs="*", help="over the recipe's: train.epochs=30")
    parser.add_argument("--recipe", default="best")
    parser.add_argument("--dataset", default="mnist")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--seeds", type=int, default=5, help="how many")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--threads", type=int, help="of the CPU; default: all cores")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where the runs go")
    parser.add_argument("--output", type=Path, default=Path("best_accuracy"), help="no suffix")
    options = parser.parse_args()
    options.runs.mkdir(parents=True, exist_ok=True)
    lines = options.output.with_suffix(".jsonl")
    done = {run["seed"] for run in read_runs(lines, options)}
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        if seed in done:
            continue
        found = train(seed, options)
        with lines.open("a") as file:
            file.write(json.dumps(found) + "\n")
        print(f"seed {seed}: {100 * found['accuracy']:.2f} %", flush=True)
    command = f"python benchmarks/best_accuracy.py {shlex.join(sys.argv[1:])}"
    options.output.with_suffix(".md").write_text(report(read_runs(lines, options), command))


if __name__ == "__main__":
    main()
