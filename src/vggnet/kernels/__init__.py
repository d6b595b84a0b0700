"""VGG's 3×3 convolutions on a CPU by Winograd's algorithm, compiled at first use.

The engine asks here and nowhere else: `accelerate` gives a network that computes the
same with the kernels, or the network itself where they cannot be had.
"""

from __future__ import annotations

from vggnet.kernels.accelerate import KernelStatus, accelerate, status
from vggnet.kernels.memory import keep_memory

__all__ = ["KernelStatus", "accelerate", "keep_memory", "status"]
