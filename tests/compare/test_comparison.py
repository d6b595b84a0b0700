"""An interrupted comparison returns what is done."""

from __future__ import annotations

import pytest
import torch

from vggnet.compare.comparison import Comparison
from vggnet.compare.plan import ComparisonPlan, Observer
from vggnet.data.dataset import Dataset
from vggnet.recipes import resolve_config

TINY = {"model": {"stages": [[8], [8]], "hidden": [8]}, "train": {"global_batch_size": 64}}


class CtrlC(Observer):
    """Interrupts the second repeat with gradients off, like Ctrl-C inside `torch.no_grad`."""

    def began(self, what: str) -> None:
        """Raise KeyboardInterrupt in the second repeat."""
        if what.startswith("repeat 2 of"):
            torch.set_grad_enabled(False)
            raise KeyboardInterrupt


def test_an_interrupt_within_no_grad_loses_nothing(mnist: Dataset) -> None:
    """The result has the first repeat, although gradients are still switched off."""
    plan = ComparisonPlan(
        config=resolve_config(TINY),
        dataset=mnist,
        devices=(torch.device("cpu"),),
        threads=(1,),
        steps=2,
        repeats=3,
        sweep=None,
    )
    comparison = Comparison(plan, CtrlC())
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
