"""Compiled 3×3 convolutions (Winograd's algorithm) for the CPU, with torch as the fallback.

Other packages use the names below: `accelerate` returns a network that computes the same with
the compiled kernels, or the network itself if they are unavailable.
"""

from __future__ import annotations

from vggnet.kernels.accelerate import KernelStatus, accelerate, keep_memory, kernels_of, status

__all__ = ["KernelStatus", "accelerate", "keep_memory", "kernels_of", "status"]
