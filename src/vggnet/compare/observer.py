"""What a comparison tells while it goes on."""

from __future__ import annotations


class Observer:
    """Told of the progress; this one keeps silent."""

    def began(self, what: str) -> None:
        """Something takes up to minutes from now on."""

    def expected(self, seconds: float) -> None:
        """So much is left in all, as far as the warm-up tells."""

    def advanced(self, seconds: float) -> None:
        """So much of what was expected is done; called at every step of a timed loop."""

    def warned(self, message: str) -> None:
        """Something was left out."""
