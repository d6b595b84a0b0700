"""A row of the result in the making."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field

from vggnet.compare.energy import Meter
from vggnet.compare.measure import Training
from vggnet.compare.result import Cold, Parts, Row


@dataclass
class Lane:
    """A row in the making: what was measured of one setting so far."""

    training: Training
    strict: bool
    best: bool
    meter: Meter | None
    warmup_seconds: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    joules: list[float] = field(default_factory=list)
    step_losses: list[float] = field(default_factory=list)
    mistakes: list[int] = field(default_factory=list)
    test_images: int = 0
    peak: float | None = None
    parts: Parts | None = None
    cold: Cold | None = None

    @property
    def step_seconds(self) -> float:
        """What a step takes, roughly."""
        return statistics.median(self.warmup_seconds)

    @property
    def measured(self) -> bool:
        """Whether the first repeat and its evaluation are complete."""
        return bool(self.seconds) and self.test_images > 0

    def row(self) -> Row:
        """Return what is known of it so far."""
        return Row(
            setting=self.training.setting,
            images=self.training.images,
            seconds=tuple(self.seconds),
            strict=self.strict,
            best=self.best,
            steps=self.training.steps,
            warmup_seconds=tuple(self.warmup_seconds),
            step_losses=tuple(self.step_losses),
            mistakes=tuple(self.mistakes),
            test_images=self.test_images,
            peak_flops_per_second=self.peak,
            parts=self.parts,
            cold=self.cold,
            # Ctrl-C may have come between a repeat's joules and its seconds.
            joules=tuple(self.joules[: len(self.seconds)]) if self.meter else None,
        )
