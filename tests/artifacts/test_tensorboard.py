"""TensorBoard events, where the extra is installed, and the way to it where it is not."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from vggnet.artifacts.run_folder import RunFolder
from vggnet.engine.fit import EpochResult
from vggnet.errors import ConfigError

INSTALLED = find_spec("tensorboard") is not None


@pytest.mark.skipif(not INSTALLED, reason="the extra tensorboard is not installed")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_epochs_figures_become_scalars(tmp_path: Path) -> None:
    """TensorBoard's own reader finds each figure at the epoch's last step."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = RunFolder.create(tmp_path, "run", "fast", tensorboard=True)
    result = EpochResult(
        epoch=1.0,
        step=2,
        images=256,
        loss=0.25,
        accuracy=0.5,
        lr=1e-3,
        seconds=2.0,
        step_losses=[0.3, 0.2],
        step_accuracies=[0.4, 0.6],
    )
    folder.write_epochs([result], [None])
    events = EventAccumulator(str(folder.path)).Reload()
    assert "train_loss" in events.Tags()["scalars"]
    (scalar,) = events.Scalars("train_loss")
    assert (scalar.step, scalar.value) == (2, 0.25)


@pytest.mark.skipif(INSTALLED, reason="the extra tensorboard is installed")
def test_without_the_extra_the_error_says_what_to_install(tmp_path: Path) -> None:
    """Nothing is made before the user knows."""
    with pytest.raises(ConfigError, match=r"pip install 'vggnet\[tensorboard\]'"):
        RunFolder.create(tmp_path / "runs", "run", "fast", tensorboard=True)
    assert not (tmp_path / "runs").exists()
