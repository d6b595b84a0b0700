"""An evaluation of a model, as a notebook shows it."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from html import escape
from typing import Self

import numpy as np
import numpy.typing as npt

from vggnet.artifacts.inline import render_inline
from vggnet.artifacts.plots import render_confusion_matrix, render_mistakes
from vggnet.engine.evaluate import Evaluation

_MOST_CLASSES = 50
"""A confusion matrix of more classes cannot be read in a cell."""


@dataclass(frozen=True, repr=False, kw_only=True)
class ModelEvaluation(Evaluation):
    """An evaluation that knows its images, and so can show its errors."""

    classes: tuple[str, ...]
    """Names of the classes, in the order of the logits."""
    images: npt.NDArray[np.uint8] = field(repr=False)
    """The evaluated images, (N, C, H, W)."""

    @classmethod
    def of(cls, found: Evaluation, classes: tuple[str, ...], images: npt.NDArray[np.uint8]) -> Self:
        """Add names and images to an evaluation."""
        known = {one.name: getattr(found, one.name) for one in fields(found)}
        return cls(**known, classes=classes, images=images)

    def _repr_html_(self) -> str:
        parts = [f"<p>{escape(self.describe())}, loss {self.loss:.4f}</p>"]
        if len(self.classes) <= _MOST_CLASSES:
            parts.append(
                render_inline(
                    lambda path: render_confusion_matrix(path, self, self.classes),
                    "Confusion matrix",
                )
            )
        if self.correct < self.count:
            parts.append(
                render_inline(
                    lambda path: render_mistakes(path, self.images, self, self.classes, 16),
                    "The most confident errors",
                )
            )
        return "".join(parts)
