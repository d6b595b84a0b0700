"""The runs that a study has finished: one JSON line each, appended as they end."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from vggnet.artifacts.atomic import write_file
from vggnet.config import differences
from vggnet.errors import ConfigError, OutputError, ResultFileError
from vggnet.recipes import unflatten
from vggnet.study.plan import MAY_DIFFER, Study


class Finished(BaseModel):
    """What one training came to."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    seed: int
    depth: int
    """Layers with weights."""
    parameters: int
    """Of the network as it was trained, batch norm included."""
    accuracy: float
    """Share of the test images classified right, 0 to 1, by the last step's weights."""
    loss: float
    """Mean cross-entropy on them, in nats."""
    count: int
    """Test images."""
    train_loss: float
    """Of the last epoch, label smoothing included."""
    seconds: float
    """Spent on steps; without loading, evaluation and saving."""
    images: int
    """Images trained on, repetitions counted."""
    settings: dict[str, Any]
    """What all runs of the study have in common."""
    dataset_sha256: str
    environment: dict[str, Any]


class Ledger:
    """The lines of a study, in its folder's `study.jsonl`.

    Args:
        study: Whose runs they are.

    Raises:
        ConfigError: The file is of a study with other settings.
        OutputError: The folder cannot be made.
        ResultFileError: The file is damaged.
    """

    def __init__(self, study: Study) -> None:
        self.path = study.output / "study.jsonl"
        try:
            study.output.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot make {study.output}: {error.strerror}") from None
        wanted = {run.name for run in study.runs}
        lines = load_lines(self.path) if self.path.exists() else []
        _check_settings(lines, study, self.path)
        self.runs = {name_of(one): one for one in lines if name_of(one) in wanted}
        self._others = [one for one in lines if name_of(one) not in wanted]

    def append(self, run: Finished) -> None:
        """Add a line, and have it on the disk before the next run begins.

        Raises:
            OutputError: The disk does not take it; the lines before it stand.
        """
        self.runs[name_of(run)] = run
        lines = "".join(
            f"{one.model_dump_json()}\n" for one in [*self._others, *self.runs.values()]
        )
        write_file(self.path, lines.encode())


def name_of(run: Finished) -> str:
    """Return what `Run.name` calls it."""
    return f"{run.model}-seed{run.seed}"


def load_lines(path: Path) -> list[Finished]:
    """Read a study's file.

    Raises:
        ResultFileError: It cannot be read, or a line is damaged.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ResultFileError(f"cannot read {path}: {error}") from None
    found = []
    for number, line in enumerate(lines, 1):
        try:
            found.append(Finished.model_validate_json(line))
        except ValidationError:
            raise ResultFileError(f"{path} is damaged in line {number}; remove that line") from None
    return found


def _check_settings(lines: Iterable[Finished], study: Study, path: Path) -> None:
    for one in lines:
        changed = differences(unflatten(one.settings), study.runs[0].config, MAY_DIFFER)
        if changed:
            raise ConfigError(
                f"{path} is of a study with other settings: {'; '.join(map(str, changed))}; give "
                "the same ones, or another --output"
            )
