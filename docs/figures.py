"""Draw docs/receptive-field.svg: what one unit sees through stacked 3×3 convolutions.

python docs/figures.py
"""

from __future__ import annotations

from pathlib import Path

CELL, SIDE, GAP = 18, 9, 46
CAPTIONS = ("image", "after 1 convolution", "after 2", "after 3")

STYLE = """
text{font:13px ui-sans-serif,system-ui,sans-serif;fill:#1f2328}
.cell{fill:none;stroke:#8c959f;stroke-width:.6}
.seen{fill:#0072B2;stroke:#8c959f;stroke-width:.6}
path{stroke:#8c959f;fill:none}
@media (prefers-color-scheme:dark){text{fill:#e6edf3}.cell,.seen,path{stroke:#6e7681}}
"""


def render() -> str:
    """Return the figure: four grids; the cells that one unit of the last grid depends on."""
    parts = []
    middle = SIDE // 2
    for number, caption in enumerate(CAPTIONS):
        left = 10 + number * (SIDE * CELL + GAP)
        reach = len(CAPTIONS) - 1 - number
        for row in range(SIDE):
            for column in range(SIDE):
                distance = max(abs(row - middle), abs(column - middle))
                kind = "seen" if distance <= reach else "cell"
                opacity = f' fill-opacity="{1 - 0.24 * distance:.2f}"' if kind == "seen" else ""
                parts.append(
                    f'<rect x="{left + column * CELL}" y="{10 + row * CELL}" width="{CELL}" '
                    f'height="{CELL}" class="{kind}"{opacity}/>'
                )
        seen = 2 * reach + 1
        center = left + SIDE * CELL / 2
        bottom = 10 + SIDE * CELL
        parts.append(f'<text x="{center}" y="{bottom + 22}" text-anchor="middle">{caption}</text>')
        parts.append(
            f'<text x="{center}" y="{bottom + 41}" text-anchor="middle">{seen}×{seen}</text>'
        )
        if reach:
            x, y = left + SIDE * CELL + 8, 10 + SIDE * CELL / 2
            parts.append(f'<path d="M{x} {y}h{GAP - 20}m-6 -5l6 5l-6 5"/>')
    width = len(CAPTIONS) * (SIDE * CELL + GAP) - GAP + 20
    height = SIDE * CELL + 62
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}"><style>{STYLE.strip()}</style>{"".join(parts)}</svg>\n'
    )


if __name__ == "__main__":
    (Path(__file__).parent / "receptive-field.svg").write_text(render(), encoding="utf-8")
