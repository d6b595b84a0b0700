"""Kill a training run again and again and check what is lost.

    python benchmarks/stress/kill_loop.py --kills 1000

A child process trains a tiny network with a checkpoint after every step and is killed by SIGKILL:
in the middle of writing a file, before the flush, before the rename, before the manifest, while
deleting old checkpoints, or at a random time. The next child resumes. After every kill the
checkpoints must load, and at most the current step may be lost. At its end the run's state must
equal, bit for bit, that of a run that was not killed. The script starts more runs until it has
made all kills.

Children are forked from a process that has imported torch but computed nothing, so a kill takes
milliseconds.
"""

from __future__ import annotations

import argparse
import collections
import mmap
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np
import torch

from vggnet.artifacts.checkpoint import CheckpointFolder
from vggnet.artifacts.run_folder import RunFolder
from vggnet.data.dataset import Dataset
from vggnet.data.storage import load_dataset
from vggnet.engine.session import Session
from vggnet.engine.snapshot import Snapshot
from vggnet.errors import CheckpointError
from vggnet.recipes import resolve_config
from vggnet.run import Plan, Reporter, fit_to_data
from vggnet.run.checkpointing import CheckpointSchedule
from vggnet.run.plan import Start
from vggnet.run.resume import load_checkpoint
from vggnet.run.training import Training

EPOCHS = 8

STEPS = 16
"""Steps per epoch."""

BATCH = 16

RANDOM_TIME = "at a random time"
FINISHED = "finished before the kill"

CALLS = {
    "mid-write": (os, "fdopen", 2),
    "before fsync": (os, "fsync", 4),
    "before rename": (Path, "replace", 2),
    "before the manifest": (os, "fdopen", 2),
    "during pruning": (Path, "unlink", 4),
}
"""Kill points: the function that is called there, and how often one checkpoint calls it."""


class Steps(Reporter):
    """Writes the last step's number to memory that outlives the process."""

    def __init__(self, memory: mmap.mmap) -> None:
        self.memory = memory

    def stepped(self, step: int, total: int) -> None:
        """Store the number of the step."""
        self.memory[:8] = step.to_bytes(8, "little")


def die(*arguments: object, **options: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class HalfFile:
    """A file that kills its process after writing half of the content."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()

    def write(self, content: bytes) -> None:
        """Write half of the content, then kill the process."""
        self.file.write(content[: len(content) // 2])
        self.file.flush()
        die()


def kill_at(point: str, checkpoints: int, dice: random.Random) -> None:
    """Make this process kill itself at a kill point while it writes its nth checkpoint."""
    owner, name, calls = CALLS[point]
    original: Callable[..., Any] = getattr(owner, name)
    which = 1 if point == "before the manifest" else dice.randrange(calls)
    fatal = (checkpoints - 1) * calls + which + 1
    made = 0

    def call(*arguments: Any, **options: Any) -> Any:
        nonlocal made
        made += 1
        if made != fatal:
            return original(*arguments, **options)
        if point == "mid-write":
            return HalfFile(original(*arguments, **options))
        return die()

    setattr(owner, name, call)


def train(plan: Plan, memory: mmap.mmap) -> None:
    """Train from the latest checkpoint to the end, as a resumed run does."""
    folder = plan.output.parent
    reporter = Steps(memory)
    if any(folder.glob("checkpoints/*.json")):
        start = Start(plan.config, folder, load_checkpoint(folder, reporter.warned))
        plan = replace(plan, start=start)
    Training(plan, CheckpointSchedule("1"), reporter).run(RunFolder(folder))


def import_optimizer() -> None:
    """Import before forking what torch imports at the first step, which takes a second."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    parameter.grad = torch.zeros(1)
    torch.optim.Adam([parameter], fused=True).step()


def fork(run: Callable[[], None]) -> int:
    """Run a function in a child process and return the child's id."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        run()
        code = 0
    except BaseException as error:
        print(f"child failed: {type(error).__name__}: {error}", file=sys.stderr)
    finally:
        os._exit(code)


def build_plan(folder: Path) -> Plan:
    """Plan a run in a new folder."""
    mnist = load_dataset("mnist")
    images = mnist.train.take(np.arange(STEPS * BATCH), "some")
    few = mnist.test.take(np.arange(8), "few")  # plots of more mistakes take most of the time
    dataset = Dataset("mnist", mnist.classes, images, few, mnist.sha256)
    settings = {
        "model": {"stages": ((8,), (8,)), "hidden": (8,), "dropout": 0.5},
        "train": {"epochs": EPOCHS, "global_batch_size": BATCH, "kernels": "torch"},
    }
    config = fit_to_data(resolve_config({"recipe": "article"}, settings), dataset, Session())
    folder.mkdir()
    cpu = torch.device("cpu")
    start = Start(config)
    return Plan(start, config, dataset, images, None, None, cpu, Session(), 1, folder / "m.pth")


def latest(folder: Path) -> tuple[int, list[str]]:
    """Return the step of the latest valid checkpoint, 0 for none, and any damage found."""
    path = folder / "checkpoints"
    if not path.exists() or not any(path.glob("*.json")):
        return 0, []
    snapshot, damage = CheckpointFolder(path).load_latest()
    return snapshot.values["step"], damage


def kill_once(plan: Plan, memory: mmap.mmap, dice: random.Random) -> tuple[str, int]:
    """Kill one child; return the kill point and the number of lost steps.

    Raises:
        AssertionError: The child failed, or a checkpoint does not load.
    """
    point = dice.choice([*CALLS, RANDOM_TIME])
    seed = dice.random()

    def run() -> None:
        if point in CALLS:
            kill_at(point, random.Random(seed).randint(1, 3), random.Random(seed))
        train(plan, memory)

    child = fork(run)
    if point not in CALLS:
        time.sleep(dice.uniform(0, 0.15))
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, f"resuming failed: {point}"
    if not os.WIFSIGNALED(status):
        return FINISHED, 0
    try:
        step, damage = latest(plan.output.parent)
    except CheckpointError as error:
        raise AssertionError(f"killed {point}: {error}") from None
    assert not damage, f"killed {point}: {damage}"
    return point, int.from_bytes(memory[:8], "little") - step


def finish(plan: Plan, memory: mmap.mmap) -> Snapshot:
    """Train to the end in a child that is not killed; return the final state."""
    child = fork(lambda: train(plan, memory))
    assert os.waitpid(child, 0)[1] == 0, "a run did not finish"
    return CheckpointFolder(plan.output.parent / "checkpoints").load_latest()[0]


def same_state(one: Snapshot, other: Snapshot) -> bool:
    """Return whether two states have bitwise equal tensors."""
    return one.tensors.keys() == other.tensors.keys() and all(
        torch.equal(tensor, other.tensors[name]) for name, tensor in one.tensors.items()
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    import_optimizer()
    dice = random.Random(options.seed)
    points: collections.Counter[str] = collections.Counter()
    lost: collections.Counter[int] = collections.Counter()
    memory = mmap.mmap(-1, 8)
    with tempfile.TemporaryDirectory() as temporary:
        expected = finish(build_plan(Path(temporary, "undisturbed")), memory)
        equal = []
        while points.total() < options.kills:
            plan = build_plan(Path(temporary, f"killed-{len(equal)}"))
            memory[:8] = bytes(8)  # reset the last run's steps
            while points.total() < options.kills:
                point, cost = kill_once(plan, memory, dice)
                if point == FINISHED:
                    break
                points[point] += 1
                lost[cost] += 1
            equal.append(same_state(finish(plan, memory), expected))
    for point, count in sorted(points.items()):
        print(f"{count:5} kills {point}")
    for cost, count in sorted(lost.items()):
        print(f"{count:5} times {cost} steps lost")
    steps = EPOCHS * STEPS
    print(f"{sum(equal)} of {len(equal)} runs of {steps} steps equal the undisturbed run")
    sys.exit(not all(equal) or max(lost, default=0) > 1)


if __name__ == "__main__":
    main()
