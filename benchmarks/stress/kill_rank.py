"""Kill one of two processes at a random step and let `--max-restarts 3` restart them.

    python benchmarks/stress/kill_rank.py --runs 20

Each run is `vggnet train --nproc 2`, as a user types it. The script kills rank 1 by SIGKILL at a
random step. torchrun restarts both processes, which resume from the last checkpoint. Every run
must end with exit code 0, one summary, and the weights of an undisturbed run.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

EPOCHS = 1
STEPS = 469
"""Steps per epoch of the article's recipe, with 128 images each."""

TRAIN = [sys.executable, "-m", "vggnet", "train", "--recipe", "article", "--stages", "8/8"]
TRAIN += ["--hidden", "8", "--threads", "1", "--epochs", str(EPOCHS), "--nproc", "2"]
TRAIN += ["--max-restarts", "3", "--checkpoint-every", "10", "--name", "run"]


def rank_one(launcher: int) -> int | None:
    """Return the process id of rank 1, which has RANK=1 in its environment."""
    for child in Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split():
        try:
            environment = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"RANK=1" in environment:
            return int(child)
    return None


def newest_step(folder: Path) -> int:
    """Return the step of the newest checkpoint, 0 for none."""
    names = sorted(path.stem for path in folder.glob("runs/run/checkpoints/step-*.json"))
    return int(names[-1].removeprefix("step-")) if names else 0


def run(folder: Path, kill_at: int | None) -> tuple[int, str]:
    """Train and kill rank 1 after a step; return the step of the kill and the weights' hash.

    Raises:
        SystemExit: The run failed, or did not print exactly one summary.
    """
    launcher = subprocess.Popen(
        TRAIN, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    killed = 0
    while kill_at is not None and launcher.poll() is None and not killed:
        if newest_step(folder) >= kill_at and (victim := rank_one(launcher.pid)):
            os.kill(victim, signal.SIGKILL)
            killed = newest_step(folder)
        time.sleep(0.002)
    out, err = launcher.communicate()
    if launcher.returncode or out.count("test accuracy") != 1:
        raise SystemExit(f"killed at {kill_at}: exit {launcher.returncode}\n{out}\n{err}")
    if kill_at is not None and not killed:
        raise SystemExit(f"the run ended before step {kill_at}")
    weights = (folder / "runs/run/model.safetensors").read_bytes()
    size = int.from_bytes(weights[:8], "little")  # the header contains the time
    return killed, hashlib.sha256(weights[8 + size :]).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    dice = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        _, expected = run(Path(folder), None)
    for number in range(1, options.runs + 1):
        with tempfile.TemporaryDirectory() as folder:
            killed, weights = run(Path(folder), dice.randrange(0, STEPS - 40))
        same = "equal" if weights == expected else "DIFFERENT"
        print(f"run {number}: killed after step {killed}, finished, weights {same}", flush=True)
        if weights != expected:
            sys.exit(1)


if __name__ == "__main__":
    main()
