"""How well `vggnet predict` reads images of digits made in many ways.

    python benchmarks/drawing_styles.py MODEL [--split test] [--count 1000] [--output STEM]

The same digits of MNIST are laid on sheets of paper in one kind after another, given to
`prepare_digit` and the model, and counted. "as MNIST has them" are the digits themselves,
unprepared; every kind should come within a point of it. Preparation was tuned on
`--split train`, which takes the last training images; the test set is for the end.
"""

from __future__ import annotations

import argparse
import io
import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageFilter

import vggnet
from vggnet.data.decode import decode_image
from vggnet.engine.environment import describe_environment
from vggnet.inference.prepare import prepare_digit

Floats = npt.NDArray[np.float32]
Random = np.random.Generator


def enlarge(digit: Floats, by: float) -> Floats:
    """Scale ink, 0 to 1, (28, 28)."""
    side = round(28 * by)
    image = Image.fromarray(digit).resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(image, np.float32).clip(0, 1)


def reshape_strokes(digit: Floats, pixels: int) -> Floats:
    """Thicken strokes (positive) or thin them, at four times MNIST's resolution."""
    large = Image.fromarray((255 * enlarge(digit, 4)).astype(np.uint8))
    kind = ImageFilter.MaxFilter if pixels > 0 else ImageFilter.MinFilter
    return np.asarray(large.filter(kind(2 * abs(pixels) + 1)), np.float32) / 255


def sheet(
    ink: Floats,
    height: int,
    width: int,
    top: int,
    left: int,
    paper: float | Floats = 250.0,
    colour: tuple[float, float, float] = (20.0, 20.0, 25.0),
) -> npt.NDArray[np.uint8]:
    """Lay ink on paper: uint8, (H, W, 3)."""
    whole = np.zeros((height, width, 1), np.float32)
    whole[top : top + ink.shape[0], left : left + ink.shape[1], 0] = ink
    ground = np.asarray(paper, np.float32)[..., np.newaxis]
    laid = ground * (1 - whole) + np.array(colour, np.float32) * whole
    return laid.clip(0, 255).astype(np.uint8)


def middle(ink: Floats, **how: object) -> npt.NDArray[np.uint8]:
    """Lay ink in the middle of a sheet twice as large."""
    side = 2 * ink.shape[0]
    return sheet(ink, side, side, side // 4, side // 4, **how)  # type: ignore[arg-type]


def clean(digit: Floats, random: Random) -> npt.NDArray[np.uint8]:
    return middle(enlarge(digit, 4))


def inverted(digit: Floats, random: Random) -> npt.NDArray[np.uint8]:
    return 255 - middle(enlarge(digit, 4))


def corner(digit: Floats, random: Random) -> npt.NDArray[np.uint8]:
    ink = enlarge(digit, 2)
    top, left = (int(random.integers(0, 2)) * (640 - len(ink)) for _ in range(2))
    return sheet(ink, 640, 640, top, left)


def half(digit: Floats, random: Random) -> npt.NDArray[np.uint8]:
    small = Image.fromarray(digit).resize((14, 14), Image.Resampling.BOX)
    return middle(np.asarray(small, np.float32))


def double(digit: Floats, random: Random) -> npt.NDArray[np.uint8]:
    return middle(enlarge(digit, 2))


def eightfold(digit: Floats, random: Random) -> npt.NDArray[np.uint8]:
    return middle(enlarge(digit, 8))


def thin_pen(digit: Floats, random: Random) -> npt.NDArray[np.uint8]:
    return middle(reshape_strokes(digit, -2))


def marker(digit: Floats, random: Random) -> npt.NDArray[np.uint8]:
    return middle(reshape_strokes(digit, 2))


def jpeg(digit: Floats, random: Random) -> npt.NDArray[np.uint8]:
    file = io.BytesIO()
    Image.fromarray(middle(enlarge(digit, 3))).save(file, "JPEG", quality=30)
    return decode_image(file.getvalue())


def shadow(digit: Floats, random: Random) -> npt.NDArray[np.uint8]:
    """Rough paper, half of it in a soft shadow at some angle."""
    ink = enlarge(digit, 4)
    side = 2 * len(ink)
    rows, columns = np.mgrid[:side, :side] / side - 0.5
    angle = random.uniform(0, 2 * np.pi)
    along = rows * np.sin(angle) + columns * np.cos(angle) + random.uniform(-0.2, 0.2)
    light = 1 - 0.5 / (1 + np.exp(-along / random.uniform(0.01, 0.1)))
    grain = random.normal(0, 6, (side, side))
    return middle(ink, paper=(225 * light + grain).astype(np.float32))


def colour_ink(digit: Floats, random: Random) -> npt.NDArray[np.uint8]:
    inks = ((200, 30, 40), (30, 60, 190), (20, 130, 60), (230, 120, 20))
    return middle(enlarge(digit, 3), colour=inks[random.integers(len(inks))], paper=245.0)


def chalk(digit: Floats, random: Random) -> npt.NDArray[np.uint8]:
    """Grainy strokes on a blackboard that is not evenly dark."""
    ink = enlarge(digit, 4)
    ink = ink * random.uniform(0.55, 1, ink.shape).astype(np.float32)
    side = 2 * len(ink)
    board = 45 + 20 * np.mgrid[:side, :side][1] / side + random.normal(0, 5, (side, side))
    return middle(ink, paper=board.astype(np.float32), colour=(225.0, 225.0, 215.0))


def edge(digit: Floats, random: Random) -> npt.NDArray[np.uint8]:
    """An image cut at the ink on one side."""
    ink = enlarge(digit, 4)
    random.integers(4)  # drawn so when the published figures were made
    turns = int(random.integers(4))
    whole = np.rot90(ink, turns)
    whole = whole[np.flatnonzero((whole > 0.5).any(axis=1))[0] :]
    return np.ascontiguousarray(np.rot90(sheet(whole, *whole.shape, 0, 0), -turns))


KINDS: tuple[Callable[[Floats, Random], npt.NDArray[np.uint8]], ...] = (
    clean, inverted, corner, half, double, eightfold, thin_pen, marker, jpeg, shadow, colour_ink,
    chalk, edge,
)  # fmt: skip


def make(kind: str, digit: npt.NDArray[np.uint8], seed: int) -> npt.NDArray[np.uint8]:
    """Make one image: uint8, (H, W, 3), the same each time."""
    (function,) = (one for one in KINDS if one.__name__ == kind)
    return function(digit.astype(np.float32) / 255, np.random.default_rng(seed))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--split", choices=["train", "test"], default="train")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--output", type=Path, help="stem of the .md and .json to write")
    options = parser.parse_args()
    dataset = vggnet.load_dataset("mnist")
    if options.split == "train":
        chosen = np.arange(len(dataset.train) - options.count, len(dataset.train))
    else:
        chosen = np.random.default_rng(0).choice(len(dataset.test), options.count, replace=False)
    examples = getattr(dataset, options.split)
    digits, labels = examples.images[chosen, 0], examples.labels[chosen]
    classifier = vggnet.load(options.model)
    base = 100 * float((classifier.predict(digits).indices == labels).mean())
    rows = {"as MNIST has them": base}
    for kind in (one.__name__ for one in KINDS):
        seen = [prepare_digit(make(kind, digit, at)) for at, digit in enumerate(digits)]
        drawn = [at for at, one in enumerate(seen) if one is not None]
        answers = classifier.predict(np.stack([seen[at] for at in drawn])).indices
        rows[kind] = 100 * float((answers == labels[drawn]).sum()) / len(labels)
        print(f"{kind:12} {rows[kind]:.2f}  {rows[kind] - base:+.2f}", flush=True)
    found = describe_environment()
    text = f"""# Images of digits, read

{options.count:,} {options.split} images of MNIST, drawn in each kind; accuracy in %.

| kind | accuracy | against the digits as MNIST has them, points |
|---|---|---|
"""
    for kind, accuracy in rows.items():
        text += f"| {kind.replace('_', ' ')} | {accuracy:.2f} | {accuracy - base:+.2f} |\n"
    text += f"""
- torch {found["torch"]}; `python benchmarks/drawing_styles.py {shlex.join(sys.argv[1:])}`
"""
    print(text)
    if options.output:
        options.output.with_suffix(".md").write_text(text)
        options.output.with_suffix(".json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
