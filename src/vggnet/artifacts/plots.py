"""Draw curves, confusion matrices and sheets of images as PNG, without global state."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from vggnet.artifacts.atomic import write_file
from vggnet.artifacts.outputs import PNG_SOFTWARE
from vggnet.engine.calibration import Reliability
from vggnet.engine.evaluate import Evaluation, Score, wilson_interval
from vggnet.engine.fit import EpochResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#666666"
"""From Okabe and Ito's palette for color-blind readers."""

_MOST_CLASSES = 200
"""Classes up to which there is a matrix: the names of more overlap."""

_MOST_PAIRS = 40
"""Pairs of classes that are drawn in place of a matrix."""

_MOST_NAME = 40
"""Characters of a class's name beside a bar."""

_GROUPS = 2_000
"""Groups of steps in a curve, which is 480 pixels wide; a line through a million takes 2 s."""

_AS_WRITTEN: dict[str, Any] = {"parse_math": False}
"""For text that contains a name: the class "cost_$ or cost_^$" is not a formula."""


def render_curves(
    path: Path,
    epochs: Sequence[EpochResult],
    validations: Sequence[Evaluation | Score | None],
    test: Evaluation,
    label_smoothing: float,
) -> None:
    """Draw loss and accuracy against steps: training, validation and test.

    Args:
        label_smoothing: Included in the training loss only, as the legend says.
    """
    losses = np.concatenate([epoch.step_losses for epoch in epochs])
    accuracies = np.concatenate([epoch.step_accuracies for epoch in epochs])
    ends = [epoch.step for epoch in epochs]
    held_out = [(end, one) for end, one in zip(ends, validations, strict=True) if one is not None]
    figure = build_figure(10, 4.2, layout=None)
    figure.subplots_adjust(0.09, 0.115, 0.99, 0.92, wspace=0.18)
    left, right = figure.subplots(1, 2)
    smoothed = f" (labels smoothed by {label_smoothing:g})" if label_smoothing else ""
    _draw_curve(left, losses, "training" + smoothed)
    _draw_curve(right, 100 * accuracies, "training")
    if held_out:
        steps = [end for end, _ in held_out]
        left.plot(steps, [one.loss for _, one in held_out], "o-", color=GREY, label="validation")
        shares = [100 * one.accuracy for _, one in held_out]
        right.plot(steps, shares, "o-", color=GREY, label="validation")
    left.plot(ends[-1], test.loss, "D", color=ORANGE, label=f"test: {test.loss:.4f}")
    label = f"test: {100 * test.accuracy:.2f} %"
    right.plot(ends[-1], 100 * test.accuracy, "D", color=ORANGE, label=label)
    left.set(title="Loss", ylabel="cross-entropy, nats", yscale="log")
    right.set(title="Accuracy", ylabel="accuracy, %")
    right.set_ylim(max(0.0, min(90.0, 100 * test.accuracy - 10)), 100.3)
    for axes in (left, right):
        axes.set_xlabel("step")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    left.legend(frameon=False, loc="upper right")
    right.legend(frameon=False, loc="lower right")
    save_figure(figure, path)


def render_confusion_matrix(path: Path, evaluation: Evaluation, classes: Sequence[str]) -> None:
    """Draw counts of true and predicted classes; colors show the errors only.

    Of more than 200 classes the most frequent errors are drawn, as bars.
    """
    draw = _draw_matrix if len(classes) <= _MOST_CLASSES else _draw_pairs
    save_figure(draw(evaluation, classes), path)


def _draw_matrix(evaluation: Evaluation, classes: Sequence[str]) -> Figure:
    matrix = evaluation.confusion_matrix
    mistakes = matrix.astype(float)
    np.fill_diagonal(mistakes, 0)
    many = len(classes)
    side = min(20.0, 2.2 + 0.55 * many)
    fonts = Fonts("".join(classes))
    shown = [
        name if fonts.can_draw(name) else f"no. {number}" for number, name in enumerate(classes)
    ]
    turned = 90 if max(map(len, shown)) > 3 else 0
    figure = build_figure(side, side, layout="constrained" if turned else None)
    if not turned:
        figure.subplots_adjust(0.9 / side, 0.65 / side, 1 - 0.15 / side, 1 - 0.6 / side)
    axes = figure.subplots()
    axes.imshow(mistakes, cmap="Oranges", vmin=0, vmax=max(1.0, mistakes.max() * 1.4))
    size = 10 if many <= 12 else 6
    if many <= 50:
        for (row, column), count in np.ndenumerate(matrix):
            if count:
                weight = "bold" if row == column else "normal"
                color = GREY if row == column else "black"
                axes.text(
                    column,
                    row,
                    str(count),
                    ha="center",
                    va="center",
                    fontsize=size,
                    color=color,
                    weight=weight,
                )
    axes.set_xticks(range(many), shown, rotation=turned, fontsize=size, **fonts.style)
    axes.set_yticks(range(many), shown, fontsize=size, **fonts.style)
    title = _count_errors(evaluation)
    if shown != list(classes):
        title += "\n(no.: a class whose name no font has)"
    axes.set(xlabel="predicted", ylabel="true", title=title)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


def _draw_pairs(evaluation: Evaluation, classes: Sequence[str]) -> Figure:
    """Draw the most frequent errors, each with its true and its predicted class."""
    pairs = evaluation.confused_pairs[:_MOST_PAIRS].tolist()
    names = [
        f"{_shorten(classes[true])}, predicted {_shorten(classes[predicted])}"
        for true, predicted, _ in pairs
    ]
    fonts = Fonts("".join(names))
    figure = build_figure(10, 1.5 + 0.25 * len(pairs))
    axes = figure.subplots()
    bars = axes.barh(range(len(pairs)), [images for *_, images in pairs], color=ORANGE)
    axes.bar_label(bars, padding=3)
    axes.set_yticks(range(len(pairs)), map(fonts.replace, names), fontsize=9, **fonts.style)
    figure.suptitle(  # centered above the names, too
        f"{_count_errors(evaluation)}\nThe {len(pairs)} most frequent of "
        f"{len(evaluation.confused_pairs):,} kinds of error; a matrix cannot show {len(classes):,} "
        "classes",
        fontsize=12,
    )
    axes.set_xlabel("images")
    axes.locator_params("x", integer=True)
    axes.margins(y=0.01)
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _count_errors(evaluation: Evaluation) -> str:
    return f"{evaluation.count - evaluation.correct:,} errors in {evaluation.count:,} images"


def _shorten(name: str) -> str:
    return name if len(name) <= _MOST_NAME else f"{name[: _MOST_NAME - 1]}…"


def render_reliability(path: Path, evaluation: Evaluation) -> None:
    """Draw the accuracy of predictions against their confidence, calibrated and not."""
    figure = build_figure(5, 5)
    axes = figure.subplots()
    axes.plot([0, 100], [0, 100], ":", color=GREY, linewidth=1)
    found = [("before calibration", evaluation.uncalibrated, ORANGE, "o")]
    if evaluation.calibration:
        found.append(("calibrated", evaluation, BLUE, "s"))
    for name, one, color, marker in found:
        _draw_reliability(axes, one.reliability, name, color, marker)
    axes.set(
        title=f"Confidence and accuracy of {evaluation.count:,} predictions",
        xlabel="mean confidence of the predictions in a tenth of the scale, %",
        ylabel="of these, correct, % (95 % interval)",
        xlim=(0, 102),
        ylim=(0, 102),
    )
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower right", title="mean difference (ECE)", alignment="left")
    save_figure(figure, path)


def _draw_reliability(
    axes: Axes, reliability: Reliability, name: str, color: str, marker: str
) -> None:
    """Draw a point for each tenth of the scale in which there are predictions."""
    tenths = np.minimum((reliability.confidence * 10).astype(int), 9)
    points, lows, highs = [], [], []
    for tenth in np.unique(tenths):
        inside = tenths == tenth
        count, correct = int(inside.sum()), int(reliability.correct[inside].sum())
        low, high = wilson_interval(correct, count)
        points.append((reliability.confidence[inside].mean(), correct / count))
        lows.append(correct / count - low)
        highs.append(high - correct / count)
    x, y = 100 * np.array(points).T
    errors = 100 * np.array([lows, highs])
    label = f"{name}: {100 * reliability.error:.2f} %"
    axes.errorbar(x, y, errors.clip(0), fmt=marker, color=color, capsize=2, label=label)


def render_mistakes(
    path: Path,
    images: npt.NDArray[np.uint8],
    evaluation: Evaluation,
    classes: Sequence[str],
    most: int = 40,
) -> None:
    """Draw the most confident errors, each with its true and its predicted class.

    Args:
        images: All evaluated images, uint8, (N, C, H, W), in the order of the evaluation.
        most: Number of errors to draw.
    """
    worst = evaluation.worst_mistakes(most)
    captions = []
    for index in worst:
        predicted = evaluation.predictions[index]
        confidence = 100 * evaluation.probabilities[index, predicted]
        true = classes[evaluation.labels[index]]
        captions.append(f"{true}, predicted {classes[predicted]}\n{confidence:.0f} % · no. {index}")
    errors = evaluation.count - evaluation.correct
    title = f"The {len(worst)} most confident of {errors:,} errors"
    render_sheet(path, images[worst], captions, title if len(worst) else "No errors")


def render_sheet(
    path: Path,
    images: npt.NDArray[np.uint8],
    captions: Sequence[str],
    title: str,
    columns: int = 8,
) -> None:
    """Draw images (N, C, H, W) in a grid, each with its caption."""
    rows = max(1, -(-len(images) // columns))
    figure = build_figure(1.5 * columns, 1.85 * rows + 0.5, layout=None)
    # One Axes for all images: 40 of them would take a second.
    axes = figure.add_axes((0, 0, 1, 1.85 * rows / (1.85 * rows + 0.5)))
    axes.set(xlim=(0, columns), ylim=(rows, -0.02))
    fonts = Fonts("".join((title, *captions)))
    axes.set_title(fonts.replace(title), **fonts.style)
    axes.set_axis_off()
    for number, (image, caption) in enumerate(zip(images, captions, strict=True)):
        row, column = divmod(number, columns)
        grey = image.shape[0] == 1
        shown = image[0] if grey else np.moveaxis(image[:3], 0, -1)
        place = (column + 0.06, column + 0.94, row + 0.98, row + 0.26)
        axes.imshow(
            shown, cmap="gray_r" if grey else None, vmin=0, vmax=255, extent=place, aspect="auto"
        )
        axes.text(
            column + 0.5,
            row + 0.22,
            fonts.replace(caption),
            ha="center",
            va="bottom",
            fontsize=8,
            **fonts.style,
        )
    save_figure(figure, path)


class Fonts:
    """Fonts of this machine that together draw a text; matplotlib's own has no Chinese.

    Args:
        text: All characters that will be drawn.
    """

    def __init__(self, text: str) -> None:
        from matplotlib import font_manager
        from matplotlib.ft2font import FT2Font

        default = font_manager.findfont("DejaVu Sans")
        self._missing = set(text) - _characters(default) - {"\n"}
        self.style: dict[str, Any] = dict(_AS_WRITTEN)
        if not self._missing:
            return
        families = ["DejaVu Sans"]
        for font in font_manager.fontManager.ttflist:
            if "Last Resort" in font.name:  # it draws a box for every character there is
                continue
            with contextlib.suppress(OSError, RuntimeError):  # not every file is a font
                if any(FT2Font(font.fname).get_char_index(ord(one)) for one in self._missing):
                    families.append(font.name)
                    self._missing -= _characters(font.fname)
            if not self._missing:
                break
        self.style["fontfamily"] = families

    def can_draw(self, text: str) -> bool:
        """Return whether all characters have a font."""
        return self._missing.isdisjoint(text)

    def replace(self, text: str) -> str:
        """Return a text with "?" for characters that no font has."""
        return "".join("?" if one in self._missing else one for one in text)


def _characters(path: str) -> set[str]:
    from matplotlib.ft2font import FT2Font

    return set(map(chr, FT2Font(path).get_charmap()))


def build_figure(
    width: float, height: float, layout: Literal["constrained"] | None = "constrained"
) -> Figure:
    """Return an empty figure.

    Args:
        width, height: In inches of 110 pixels.
        layout: "constrained" makes room for any text, which takes as long as the drawing.
    """
    # Imported here because it takes 0.3 s, and most commands draw nothing.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=110, layout=layout)


def _draw_curve(axes: Axes, values: npt.NDArray[np.float64], label: str) -> None:
    """Draw the value of each step as a thin line, and the running mean over it.

    Of many steps, the line joins the lowest and the highest value of each group of steps.
    """
    size = -(-len(values) // _GROUPS)
    starts = np.arange(0, len(values), size)
    ends = [np.minimum.reduceat(values, starts), np.maximum.reduceat(values, starts)]
    axes.plot(
        np.repeat(starts + 1, 2), np.stack(ends, 1).ravel(), color=BLUE, alpha=0.2, linewidth=0.7
    )
    width = max(1, len(values) // 40)
    sums = np.cumsum(np.concatenate([[0.0], values]))
    steps = np.arange(len(values), width - 1, -size)
    axes.plot(steps, (sums[steps] - sums[steps - width]) / width, color=BLUE, label=label)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, marked as vggnet's.

    Raises:
        OutputError: The file cannot be written; an existing file is unchanged.
    """
    metadata = {"Software": PNG_SOFTWARE}
    write_file(path, lambda file: figure.savefig(file, format="png", metadata=metadata))
