"""An interrupted comparison returns what is done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from vggnet.compare.comparison import Comparison
from vggnet.compare.measure import Timer
from vggnet.compare.plan import ComparisonPlan, Observer
from vggnet.compare.trials import Trials
from vggnet.data.storage import load_dataset
from vggnet.recipes import resolve_config

pytestmark = pytest.mark.usefixtures("quick_python")

TINY = {
    "model": {"stages": [[8], [8]], "hidden": [8]},
    "train": {"global_batch_size": 64, "epochs": 1},
}


class CtrlC(Observer):
    """Interrupts the second repeat with gradients off, like Ctrl-C inside `torch.no_grad`."""

    def began(self, what: str) -> None:
        """Raise KeyboardInterrupt in the second repeat."""
        if what.startswith("repeat 2 of"):
            torch.set_grad_enabled(False)
            raise KeyboardInterrupt


class Warnings(Observer):
    """Collects warnings."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def warned(self, message: str) -> None:
        """Collect a message."""
        self.messages.append(message)


def plan_of(digits: Path, threads: tuple[int, ...], min_seconds: float = 0.01) -> ComparisonPlan:
    """Plan a small comparison of the CPU with itself."""
    return ComparisonPlan(
        config=resolve_config({**TINY, "data": {"dataset": str(digits)}}),
        dataset=load_dataset(str(digits)),
        devices=(torch.device("cpu"),),
        threads=threads,
        steps=2,
        repeats=2,
        sweep=None,
        min_seconds=min_seconds,
    )


def test_a_setting_that_runs_out_of_memory_is_left_out(
    digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The comparison continues without the settings that do not fit, and says so."""
    real = functional.cross_entropy

    def short(*arguments: Any, **keywords: Any) -> Tensor:
        if torch.get_num_threads() == 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return real(*arguments, **keywords)

    monkeypatch.setattr(functional, "cross_entropy", short)
    observer = Warnings()
    comparison = Comparison(plan_of(digits, (1, 2)), observer)
    comparison.run()
    result = comparison.result()
    assert result is not None
    assert result.complete
    assert {row.setting.threads for row in result.rows} == {1}
    strict = "cpu · 2 threads · fp32 · batch 64 left out: out of memory: CUDA out of memory."
    assert any(message.startswith(strict) for message in observer.messages[-2:])


def test_larger_batches_of_a_slow_setting_are_not_tried(
    digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A precision that the CPU emulates costs one trial per thread count; others cost two."""
    real, now = functional.linear, 0.0

    def slow(*arguments: Any, **keywords: Any) -> Tensor:
        nonlocal now
        now += 0.5 if torch.is_autocast_enabled("cpu") else 0.1
        return real(*arguments, **keywords)

    monkeypatch.setattr(functional, "linear", slow)
    trials = Trials(plan_of(digits, (1,)), Observer(), Timer(clock=lambda: now))
    trials.find_best(torch.device("cpu"))
    sizes: dict[str, set[int]] = {}
    for trial in trials.timings:
        sizes.setdefault(trial.setting.precision, set()).add(trial.setting.global_batch_size)
    assert sizes == {"fp32": {64, 256}, "bf16": {64}}


def test_a_short_training_is_repeated(digits: Path) -> None:
    """Warm-up and repeats reach their minimum duration; a row counts one training."""
    comparison = Comparison(plan_of(digits, (1,), min_seconds=0.5))
    comparison.run()
    result = comparison.result()
    assert result is not None
    for row in result.rows:
        assert row.passes > 1
        assert sum(row.warmup_seconds) >= 0.15
        assert row.images <= 2 * 256
        assert len(row.step_losses) == row.steps


def test_an_interrupt_within_no_grad_loses_nothing(digits: Path) -> None:
    """The result has the first repeat, although gradients are still switched off."""
    comparison = Comparison(plan_of(digits, (1,)), CtrlC())
    try:
        with pytest.raises(KeyboardInterrupt):
            comparison.run()
        result = comparison.result()
    finally:
        torch.set_grad_enabled(True)
    assert result is not None
    assert not result.complete
    assert [len(row.seconds) for row in result.rows if row.strict] == [1]
    assert result.counted_flops_per_image == result.flops_per_image
