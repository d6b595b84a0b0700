"""Kill two processes that train together at four points of a run and resume.

    python benchmarks/stress/resume_matrix.py

The script kills both processes by SIGKILL after the checkpoint of the first step, in the middle of
an epoch, at the end of an epoch, and before the last step. Two new processes resume. The final
state must equal, bit for bit, that of two processes that were not killed: weights, averaged
weights, optimizer, sums and history. `--processes 1` does the same with one process.

Processes are forked from one that has imported torch but computed nothing, and connected by gloo,
as torchrun's are.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import socket
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from kill_loop import fork, import_optimizer

from vggnet.artifacts.checkpoint import CheckpointFolder
from vggnet.artifacts.run_folder import RunFolder
from vggnet.data.dataset import Dataset
from vggnet.data.storage import load_dataset
from vggnet.engine.session import Session, open_session
from vggnet.engine.snapshot import Snapshot
from vggnet.recipes import resolve_config
from vggnet.run import Plan, Reporter, fit_to_data
from vggnet.run.checkpointing import CheckpointSchedule
from vggnet.run.plan import Start
from vggnet.run.resume import load_checkpoint
from vggnet.run.training import Training

IMAGES, BATCH, EPOCHS = 245, 32, 2
STEPS = -(-IMAGES // BATCH)
"""Steps per epoch. The last one has fewer images, an odd number."""

PLACES = {
    "after the first step": 1,
    "mid-epoch": STEPS // 2,
    "at an epoch's end": STEPS,
    "before the last step": EPOCHS * STEPS - 1,
}


class KillAfter(Reporter):
    """Kills its process in the step after the given one, whose checkpoint is then on disk."""

    def __init__(self, step: int | None) -> None:
        self.last = step

    def stepped(self, step: int, total: int) -> None:
        """Kill the process if the step is past."""
        if self.last is not None and step > self.last:
            os.kill(os.getpid(), signal.SIGKILL)


def train(recipe: str, path: Path, dataset: Dataset, stop: int | None) -> None:
    """Train as one rank, from the start or the latest checkpoint."""
    with open_session() as session:
        plan = build_plan(recipe, path, dataset, session)
        reporter = KillAfter(stop)
        if any(path.glob("checkpoints/*.json")):
            start = Start(plan.config, path, load_checkpoint(path, reporter.warned))
            plan = replace(plan, start=start)
        folder = RunFolder(path) if session.is_main else None
        Training(plan, CheckpointSchedule("1"), reporter).run(folder)


def build_plan(recipe: str, path: Path, dataset: Dataset, session: Session) -> Plan:
    """Plan two epochs of a tiny network with a recipe."""
    settings = {
        "model": {"stages": ((8,), (8,)), "hidden": (8,), "dropout": 0.5},
        "train": {"epochs": EPOCHS, "global_batch_size": BATCH, "kernels": "torch"},
    }
    config = fit_to_data(resolve_config({"recipe": recipe}, settings), dataset, session)
    cpu = torch.device("cpu")
    start = Start(config)
    return Plan(start, config, dataset, dataset.train, None, None, cpu, session, 1, path / "m.pth")


def latest(path: Path) -> Snapshot:
    """Return a run's newest checkpoint."""
    return CheckpointFolder(path / "checkpoints").load_latest()[0]


def train_together(
    processes: int, recipe: str, path: Path, dataset: Dataset, stop: int | None
) -> None:
    """Train with several processes and wait for them.

    Raises:
        SystemExit: A process failed, or none was killed that should be.
    """
    port = free_port()
    children = []
    for rank in range(processes):
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "MASTER_PORT": port}
        os.environ.update({name: str(value) for name, value in place.items()})
        os.environ.update(LOCAL_WORLD_SIZE=str(processes), MASTER_ADDR="localhost")
        children.append(fork(lambda: train(recipe, path, dataset, stop)))
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    if stop is None and any(codes):
        raise SystemExit(f"{recipe}, {path.name}: the processes ended with {codes}")
    if stop is not None and -signal.SIGKILL not in codes:
        raise SystemExit(f"{recipe}, {path.name}: no process was killed: {codes}")


def free_port() -> int:
    """Return an unused port below those that systems give to sockets that ask for any port.

    Another process cannot get it by chance before a rank listens on it.
    """
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("localhost", port))
            return port


def differences(one: Snapshot, other: Snapshot) -> list[str]:
    """Return the names of tensors that differ."""
    names = sorted(one.tensors.keys() | other.tensors.keys())
    return [
        name
        for name in names
        if name not in one.tensors
        or name not in other.tensors
        or not torch.equal(one.tensors[name], other.tensors[name])
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--recipes", nargs="+", default=["article", "fast", "best"])
    options = parser.parse_args()
    torch.set_num_threads(1)
    import_optimizer()
    mnist = load_dataset("mnist")
    images = mnist.train.take(np.arange(IMAGES), "some")
    few = mnist.test.take(np.arange(8), "few")  # plots of more mistakes take most of the time
    dataset = Dataset("mnist", mnist.classes, images, few, mnist.sha256)
    failed = 0
    with tempfile.TemporaryDirectory() as temporary:
        for recipe in options.recipes:
            undisturbed = Path(temporary, f"{recipe}-undisturbed")
            undisturbed.mkdir()
            train_together(options.processes, recipe, undisturbed, dataset, None)
            for place, step in PLACES.items():
                path = Path(temporary, f"{recipe}-{step}")
                path.mkdir()
                train_together(options.processes, recipe, path, dataset, step)
                found = latest(path).values["step"]
                if found != step:
                    raise SystemExit(f"{path.name}: the checkpoint is of step {found}")
                train_together(options.processes, recipe, path, dataset, None)
                different = differences(latest(path), latest(undisturbed))
                failed += bool(different)
                verdict = f"differs in {', '.join(different)}" if different else "equal"
                print(f"{recipe:8} {place:22} {verdict}", flush=True)
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
