"""The cold start: `vggnet train` as a user starts it, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from vggnet.compare.measure import Timer
from vggnet.compare.result import Cold
from vggnet.config import Config


class ColdStartError(Exception):
    """`vggnet train` failed; the message is its last line."""


def train_cold(settings: Config, timer: Timer) -> Cold:
    """Time a fresh process from its start to its end, and throw away what it leaves.

    Raises:
        ColdStartError: It failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "config.json")
        config.write_text(settings.model_dump_json(), encoding="utf-8")
        command = [sys.executable, "-m", "vggnet", "train", "--json", "--config", str(config)]
        command += ["--output", str(Path(folder, "model.pth")), "--runs", folder]
        done: list[subprocess.CompletedProcess[str]] = []

        def run() -> None:
            done.append(subprocess.run(command, capture_output=True, text=True, check=False))

        seconds = timer.time(torch.device("cpu"), run)
    if done[0].returncode:
        lines = done[0].stderr.strip().splitlines() or ["no reason given"]
        raise ColdStartError(lines[-1])
    epochs: list[dict[str, Any]] = json.loads(done[0].stdout)["epochs"]
    return Cold(seconds=seconds, training_seconds=sum(one["seconds"] for one in epochs))
