"""The epochs of a run so far: what tables, curves and checkpoints keep of them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from vggnet.engine.evaluate import Score
from vggnet.engine.fit import EpochResult

_PER_STEP = ("step_losses", "step_accuracies")


@dataclass
class History:
    """Results of the epochs, and their scores on the validation set where there is one."""

    epochs: list[EpochResult] = field(default_factory=list)
    validations: list[Score | None] = field(default_factory=list)

    def to_checkpoint(self) -> tuple[Tensor, list[dict[str, Any]]]:
        """Return the figures of all steps, float64 (steps, 2), and those of each epoch."""
        steps = [
            torch.tensor([getattr(one, name) for name in _PER_STEP], dtype=torch.float64).T
            for one in self.epochs
        ]
        rows = [
            {
                **{f.name: getattr(one, f.name) for f in fields(one) if f.name not in _PER_STEP},
                "validation": score and asdict(score),
            }
            for one, score in zip(self.epochs, self.validations, strict=True)
        ]
        return torch.cat([torch.zeros(0, 2, dtype=torch.float64), *steps]), rows

    @classmethod
    def from_checkpoint(cls, steps: Tensor, rows: list[dict[str, Any]]) -> History:
        """Read what `to_checkpoint` returned."""
        history, first = cls(), 0
        for row in rows:
            score, last = row.pop("validation"), row["step"]
            losses, accuracies = steps[first:last].T.tolist()
            history.epochs.append(
                EpochResult(**row, step_losses=losses, step_accuracies=accuracies)
            )
            history.validations.append(Score(**score) if score else None)
            first = last
        return history
