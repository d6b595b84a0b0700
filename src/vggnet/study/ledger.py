"""The finished runs of a study: one JSON line each, written when the run ends."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from vggnet.artifacts.atomic import write_file
from vggnet.config import differences
from vggnet.data.files import open_regular
from vggnet.errors import ConfigError, OutputError, ResultFileError
from vggnet.recipes import unflatten
from vggnet.study.plan import MAY_DIFFER, Study


class FinishedRun(BaseModel):
    """The result of one training."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    seed: int
    depth: int
    """Layers with weights."""
    parameters: int
    """Parameters of the network in training, batch norm included."""
    accuracy: float
    """Fraction of the test images classified correctly by the final weights, 0 to 1."""
    loss: float
    """Mean cross-entropy on the test images, nats."""
    count: int
    """Test images."""
    train_loss: float
    """Loss of the last epoch, with label smoothing."""
    seconds: float
    """Duration of the training steps, without loading, evaluation and saving."""
    images: int
    """Images trained on, counting repetitions."""
    settings: dict[str, Any]
    """The settings that all runs of the study share."""
    dataset_sha256: str
    environment: dict[str, Any]

    @property
    def name(self) -> str:
        """The run's key in `Study.runs`."""
        return f"{self.model}-seed{self.seed}"


class Ledger:
    """The finished runs in `study.jsonl` in the study's folder.

    Args:
        study: The study.

    Raises:
        ConfigError: The file is from a study with other settings.
        OutputError: The folder cannot be created.
        ResultFileError: The file is damaged.
    """

    def __init__(self, study: Study) -> None:
        self.path = study.output / "study.jsonl"
        try:
            study.output.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot create {study.output}: {error.strerror}") from None
        lines = _load_lines(self.path) if self.path.exists() else []
        _check_settings(lines, study, self.path)
        self.runs = {one.name: one for one in lines if one.name in study.runs}
        self._others = [one for one in lines if one.name not in study.runs]

    def append(self, run: FinishedRun) -> None:
        """Add a run to the file on disk.

        Raises:
            OutputError: The file cannot be written; the previous lines are kept.
        """
        self.runs[run.name] = run
        lines = [f"{one.model_dump_json()}\n" for one in [*self._others, *self.runs.values()]]
        write_file(self.path, "".join(lines).encode())


def _load_lines(path: Path) -> list[FinishedRun]:
    try:
        with open_regular(path) as file:
            lines = file.read().decode().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ResultFileError(f"cannot read {path}: {error}") from None
    found = []
    for number, line in enumerate(lines, 1):
        try:
            found.append(FinishedRun.model_validate_json(line))
        except ValidationError:
            raise ResultFileError(f"line {number} of {path} is damaged; remove it") from None
    return found


def _check_settings(lines: Iterable[FinishedRun], study: Study, path: Path) -> None:
    now = next(iter(study.runs.values()))
    for one in lines:
        changed = differences(unflatten(one.settings), now, MAY_DIFFER)
        if changed:
            raise ConfigError(
                f"{path} is from a study with other settings: {'; '.join(map(str, changed))}; use "
                "the same settings or another --output"
            )
