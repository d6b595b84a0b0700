"""An exported file is good when it answers as the network does, batch by batch."""

from __future__ import annotations

import numpy as np

from vggnet.artifacts.export.program import Pixels, Program, answer_all
from vggnet.errors import ExportError

BATCH_SIZES = (1, 2, 7, 256)
"""One, which tracing likes to make special; small ones, even and odd; more than was traced."""

TOLERANCE = 1e-4
"""Greatest difference of a logit or probability: some 10 times what rounding does to vgg-mini."""

_REFERENCE_BATCH_SIZE = 128


def check_parity(exported: Program, network: Program, pixels: Pixels, source: str) -> float:
    """Compare an exported program with the network it was made of.

    Args:
        exported: The program, read back from what is to be the file.
        network: The network, in PyTorch.
        pixels: Images to compare on, uint8, (N, C, H, W).
        source: What to call them.

    Returns:
        The greatest difference between two logits or two probabilities.

    Raises:
        ExportError: The network's answers are not finite, or the program's differ.
    """
    expected = answer_all(network, pixels, _REFERENCE_BATCH_SIZE)
    if not np.isfinite(expected.logits).all():
        raise ExportError("the network answers NaN or infinity, so there is nothing to export")
    classes = expected.logits.argmax(1)
    worst = 0.0
    for batch_size in BATCH_SIZES:
        found = answer_all(exported, pixels, batch_size)
        difference = max(
            float(np.abs(ours - theirs).max()) for ours, theirs in zip(found, expected, strict=True)
        )
        others = int((found.logits.argmax(1) != classes).sum())
        # Written so that NaN fails.
        if not difference <= TOLERANCE or others:
            raise ExportError(
                f"the exported program answers differently from the network at batch "
                f"{batch_size}: by up to {difference:.2g} where {TOLERANCE:.0e} is allowed, and "
                f"with another class for {others:,} of {len(pixels):,} {source}; "
                "nothing was written"
            )
        worst = max(worst, difference)
    return worst
