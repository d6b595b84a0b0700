"""Damaged files, as a strategy of Hypothesis."""

from __future__ import annotations

from hypothesis import strategies as st


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """Change up to four bytes anywhere, and cut up to half of the content."""
    changed = bytearray(content)
    for place in draw(st.lists(st.integers(0, len(content) - 1), max_size=4)):
        changed[place] = draw(st.integers(0, 255))
    return bytes(changed[: draw(st.integers(len(content) // 2, len(content)))])
