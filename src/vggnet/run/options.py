"""How a run is carried out, which decides nothing about the training itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vggnet.engine.session import TIMEOUT


@dataclass(frozen=True)
class Options:
    """Where a run leaves what, and how often."""

    output: Path | None = None
    """The model file; by default the resumed run's, or `<dataset>_vggnet.pth`, here."""
    runs: Path = Path("runs")
    """The folder under which a run makes its own."""
    name: str | None = None
    """The run's name; made up from recipe, dataset and time by default."""
    checkpoint_every: str | None = None
    """Steps, "10", or seconds, "30s"; by default 30 s, rarer where that costs over 1 %."""
    timeout: float = TIMEOUT
    """Seconds to wait for another process before it is taken for lost."""
    tensorboard: bool = False
    """Write TensorBoard events into the run's folder."""
