"""Numbers and lists as reports write them."""

from __future__ import annotations

from collections.abc import Sequence


def three_digits(value: float) -> str:
    """Write three significant digits without an exponent: 0.123, 12.3, 12,345."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def with_range(middle: float, low: float, high: float, digits: int | None = None) -> str:
    """Write "middle (low to high)".

    Args:
        middle: Usually a mean or a median.
        low: Smallest value.
        high: Largest value.
        digits: Decimal places; by default chosen by the size of `middle`.
    """
    if digits is None:
        digits = sum(middle < limit for limit in (1, 10, 100))
    return f"{middle:,.{digits}f} ({low:,.{digits}f} to {high:,.{digits}f})"


def join_words(words: Sequence[str]) -> str:
    """Join with commas and "and"."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
