"""Two processes that train together, without their launcher."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from resume_matrix import free_port

from conftest import Start

TRAIN = ["train", "--recipe", "article", "--dataset", "digits", "--epochs", "20"]
TRAIN += ["--validation-size", "0", "--stages", "8/8", "--hidden", "8", "--threads", "1"]
"""200 steps on the images of the fixture `digits`."""

TIMEOUT = 600
"""Seconds after which a process is taken to hang. No test depends on how fast one is."""


def train_two(fork: Start, folders: tuple[Path, Path], *arguments: str) -> list[tuple[int, str]]:
    """Run a command as ranks 0 and 1 in their folders, with the variables that torchrun sets.

    Returns:
        The exit code and standard error of each.
    """
    places = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    places |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(free_port())}
    ranks = [
        fork(*("-m", "vggnet", *arguments), cwd=folder, env=_place(rank) | places)
        for rank, folder in enumerate(folders)
    ]
    errors = [rank.communicate(timeout=TIMEOUT)[1] for rank in ranks]
    return [(rank.wait(), error) for rank, error in zip(ranks, errors, strict=True)]


def _place(rank: int) -> dict[str, str]:
    return {"RANK": str(rank), "LOCAL_RANK": str(rank)}


@pytest.fixture(scope="session")
def unbroken(
    tmp_path_factory: pytest.TempPathFactory,
    digits: Path,
    forks: Callable[[], AbstractContextManager[Start]],
) -> Path:
    """The model file of the training `TRAIN` by two processes that nothing happened to."""
    folder = tmp_path_factory.mktemp("unbroken")
    (folder / "digits").symlink_to(digits)
    with forks() as fork:
        for code, error in train_two(fork, (folder, folder), *TRAIN, "--name", "whole"):
            assert code == 0, error
    return folder / "runs" / "whole" / "model.safetensors"
