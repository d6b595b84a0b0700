"""A running average of a network over the steps of its training.

Source: B. T. Polyak and A. B. Juditsky, "Acceleration of Stochastic Approximation by
Averaging", SIAM J. Control Optim. 30(4), 1992; exponential as in arXiv 1412.6980, 7.2.
"""

from __future__ import annotations

from torch.optim.swa_utils import get_ema_multi_avg_fn

from vggnet.model.vgg import VGG


def update_average(averaged: VGG, network: VGG, decay: float, step: int) -> None:
    """Take the network after its `step`-th step into the average, in place.

    The share kept is `decay`, but 1 - 1/step while that is less: the first steps have equal
    weight, and of the initial weights nothing is left. What batch norm gathers about its
    inputs is averaged with the weights that it belongs to.
    """
    kept = min(decay, 1 - 1 / step)
    new, old = network.state_dict(), averaged.state_dict()
    floating = [name for name, tensor in new.items() if tensor.is_floating_point()]
    update = get_ema_multi_avg_fn(kept)  # type: ignore[no-untyped-call]
    update([old[name] for name in floating], [new[name] for name in floating], None)
