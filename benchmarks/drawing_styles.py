"""Measure the accuracy of `vggnet predict` on images of digits in different drawing styles.

    python benchmarks/drawing_styles.py mnist_vggnet.pth --split test --count 2000 \
        --output benchmarks/results/drawing_styles

The script draws the same MNIST digits in each style, passes them through `prepare_digit` and the
model, and reports the accuracy. The baseline is the original digits without preparation; every
style should be within one point of it. Preparation was tuned with `--split train`, which takes the
last training images; use the test set only at the end.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from measuring import build_parser, render_machine, write_report
from PIL import Image, ImageFilter

import vggnet
from vggnet.data.decode import decode_image
from vggnet.inference.prepare import prepare_digit

Floats = npt.NDArray[np.float32]
Random = np.random.Generator


def enlarge(digit: Floats, by: float) -> Floats:
    """Enlarge a digit: float32 ink from 0 to 1, (28, 28) to (28·by, 28·by)."""
    side = round(28 * by)
    image = Image.fromarray(digit).resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(image, np.float32).clip(0, 1)


def reshape_strokes(digit: Floats, pixels: int) -> Floats:
    """Thicken (positive) or thin (negative) strokes at four times MNIST's resolution."""
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
    color: tuple[float, float, float] = (20.0, 20.0, 25.0),
) -> npt.NDArray[np.uint8]:
    """Draw ink on paper: uint8, (H, W, 3)."""
    alpha = np.zeros((height, width, 1), np.float32)
    alpha[top : top + ink.shape[0], left : left + ink.shape[1], 0] = ink
    background = np.asarray(paper, np.float32)[..., np.newaxis]
    blended = background * (1 - alpha) + np.array(color, np.float32) * alpha
    return blended.clip(0, 255).astype(np.uint8)


def middle(ink: Floats, **options: object) -> npt.NDArray[np.uint8]:
    """Draw ink in the middle of a sheet twice as large."""
    side = 2 * ink.shape[0]
    return sheet(ink, side, side, side // 4, side // 4, **options)  # type: ignore[arg-type]


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
    """Draw on grainy paper, half of it in a soft shadow at a random angle."""
    ink = enlarge(digit, 4)
    side = 2 * len(ink)
    rows, columns = np.mgrid[:side, :side] / side - 0.5
    angle = random.uniform(0, 2 * np.pi)
    along = rows * np.sin(angle) + columns * np.cos(angle) + random.uniform(-0.2, 0.2)
    light = 1 - 0.5 / (1 + np.exp(-along / random.uniform(0.01, 0.1)))
    grain = random.normal(0, 6, (side, side))
    return middle(ink, paper=(225 * light + grain).astype(np.float32))


def color_ink(digit: Floats, random: Random) -> npt.NDArray[np.uint8]:
    inks = ((200, 30, 40), (30, 60, 190), (20, 130, 60), (230, 120, 20))
    return middle(enlarge(digit, 3), color=inks[random.integers(len(inks))], paper=245.0)


def chalk(digit: Floats, random: Random) -> npt.NDArray[np.uint8]:
    """Draw grainy strokes on an unevenly dark blackboard."""
    ink = enlarge(digit, 4)
    ink = ink * random.uniform(0.55, 1, ink.shape).astype(np.float32)
    side = 2 * len(ink)
    board = 45 + 20 * np.mgrid[:side, :side][1] / side + random.normal(0, 5, (side, side))
    return middle(ink, paper=board.astype(np.float32), color=(225.0, 225.0, 215.0))


def edge(digit: Floats, random: Random) -> npt.NDArray[np.uint8]:
    """Crop the image at the ink on one side."""
    ink = enlarge(digit, 4)
    random.integers(4)  # unused; keeps the random numbers of the published figures
    turns = int(random.integers(4))
    whole = np.rot90(ink, turns)
    whole = whole[np.flatnonzero((whole > 0.5).any(axis=1))[0] :]
    return np.ascontiguousarray(np.rot90(sheet(whole, *whole.shape, 0, 0), -turns))


Style = Callable[[Floats, Random], npt.NDArray[np.uint8]]
"""Draws a digit, (H, W) in 0 to 1, as uint8, (H, W, 3)."""

STYLES: tuple[Style, ...] = (
    clean, inverted, corner, half, double, eightfold, thin_pen, marker, jpeg, shadow, color_ink,
    chalk, edge,
)  # fmt: skip


def draw(
    style: Style,
    digit: npt.NDArray[np.uint8],
    seed: int,
) -> npt.NDArray[np.uint8]:
    """Draw a digit in a style, deterministically: uint8, (H, W, 3)."""
    return style(digit.astype(np.float32) / 255, np.random.default_rng(seed))


def main() -> None:
    parser = build_parser(__doc__)
    parser.add_argument("model")
    parser.add_argument("--split", choices=["train", "test"], default="train")
    parser.add_argument("--count", type=int, default=1000)
    options = parser.parse_args()
    dataset = vggnet.load_dataset("mnist")
    if options.split == "train":
        chosen = np.arange(len(dataset.train) - options.count, len(dataset.train))
    else:
        chosen = np.random.default_rng(0).choice(len(dataset.test), options.count, replace=False)
    examples = getattr(dataset, options.split)
    digits, labels = examples.images[chosen, 0], examples.labels[chosen]
    classifier = vggnet.load(options.model)
    baseline = 100 * float((classifier.predict(digits).indices == labels).mean())
    accuracies = {"original digits": baseline}
    for style in STYLES:
        prepared = [prepare_digit(draw(style, digit, at)) for at, digit in enumerate(digits)]
        found = [at for at, one in enumerate(prepared) if one is not None]
        predictions = classifier.predict(np.stack([prepared[at] for at in found])).indices
        correct = float((predictions == labels[found]).sum())
        accuracies[style.__name__] = 100 * correct / len(labels)
    rows = "".join(
        f"| {style.replace('_', ' ')} | {accuracy:.2f} | {accuracy - baseline:+.2f} |\n"
        for style, accuracy in accuracies.items()
    )
    text = f"""# Drawing styles

{options.count:,} {options.split} images of MNIST in each style; accuracy in %.

| style | accuracy | difference from the original digits, points |
|---|---|---|
{rows}
{render_machine(1)}"""
    write_report(options.output, text, {"accuracy_percent": accuracies})


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
