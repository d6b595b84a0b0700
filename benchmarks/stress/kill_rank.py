"""Kill one of two processes at a random step, again and again, under `--max-restarts 3`.

    python benchmarks/stress/kill_rank.py --runs 20

Each run is `vggnet train --nproc 2` as a user types it. After a random number of steps rank 1
is ended by SIGKILL; torchrun starts both again, and they go on from the last checkpoint. Every
run must end with exit code 0, one account, and the weights of a run that nobody disturbed.
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
"""Steps of the article's recipe in an epoch, at 128 images each."""

TRAIN = [sys.executable, "-m", "vggnet", "train", "--recipe", "article", "--stages", "8/8"]
TRAIN += ["--hidden", "8", "--threads", "1", "--epochs", str(EPOCHS), "--nproc", "2"]
TRAIN += ["--max-restarts", "3", "--checkpoint-every", "10", "--name", "run"]


def rank_one(launcher: int) -> int | None:
    """Return the process of rank 1, by what torchrun told it."""
    for child in Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split():
        try:
            told = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"RANK=1" in told:
            return int(child)
    return None


def newest_step(folder: Path) -> int:
    """Return the step of the newest checkpoint, 0 for none."""
    names = sorted(path.stem for path in folder.glob("runs/run/checkpoints/step-*.json"))
    return int(names[-1].removeprefix("step-")) if names else 0


def run(folder: Path, kill_at: int | None) -> tuple[int, str]:
    """Train, kill rank 1 once a step is past, and return when that was and the weights' hash.

    Raises:
        SystemExit: The run failed, or told its end more or less than once.
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
    size = int.from_bytes(weights[:8], "little")  # the header tells the time, the rest does not
    return killed, hashlib.sha256(weights[8 + size :]).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    dice = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        _, whole = run(Path(folder), None)
    for number in range(1, options.runs + 1):
        with tempfile.TemporaryDirectory() as folder:
            killed, weights = run(Path(folder), dice.randrange(0, STEPS - 40))
        same = "equal" if weights == whole else "DIFFERENT"
        print(f"run {number}: killed after step {killed}, finished, weights {same}", flush=True)
        if weights != whole:
            sys.exit(1)


if __name__ == "__main__":
    main()
