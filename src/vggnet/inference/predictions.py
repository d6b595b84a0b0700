"""What a model says of images: labels and probabilities."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import numpy.typing as npt

from vggnet.errors import ConfigError

if TYPE_CHECKING:
    import pandas as pd

Pixels = npt.NDArray[np.uint8]

DEFAULT_REJECT = 0.01
"""Share of images like the training images that are flagged as unlike them."""

_SHOWN = 5
"""Predictions that one line shows."""


@dataclass(frozen=True, repr=False)
class Prediction:
    """What one image, or one digit of a row, shows."""

    seen: Pixels
    """The network's input before normalization, (C, H, W); zeros if nothing is drawn."""
    top: tuple[tuple[str, float], ...]
    """Classes and probabilities, the most probable first; none if nothing is drawn."""
    typicality: float | None = None
    """As in `Predictions`."""

    def is_unlike_training(self, rate: float = DEFAULT_REJECT) -> bool | None:
        """Return whether `typicality` is below a rate; None if it is unknown."""
        return None if self.typicality is None else self.typicality < rate

    @property
    def label(self) -> str | None:
        """The most probable class; None if nothing is drawn."""
        return self.top[0][0] if self.top else None

    @property
    def probability(self) -> float:
        """Its probability; NaN if nothing is drawn."""
        return self.top[0][1] if self.top else math.nan

    def __str__(self) -> str:
        return f"{self.label} {100 * self.probability:.1f} %" if self.top else "nothing drawn"

    def __repr__(self) -> str:
        return f"Prediction({self})"


@dataclass(frozen=True, repr=False)
class Predictions(Sequence[Prediction]):
    """Predictions for N images; indexing gives one of them, slicing several.

    Examples:
        >>> model = vggnet.load("mnist_vggnet.pth")
        >>> test = vggnet.load_dataset("mnist").test
        >>> predictions = model.predict(test.images[:3])
        >>> predictions.labels
        ['7', '2', '1']
        >>> predictions[0].label, predictions[0].seen.shape
        ('7', (1, 28, 28))
        >>> len(predictions.top(2)[0])
        2
    """

    class_names: tuple[str, ...]
    """The model's classes, in the order of the columns of `probabilities`."""
    probabilities: npt.NDArray[np.float32]
    """Of every class, (N, num_classes); each row sums to 1, or is NaN if nothing is drawn."""
    seen: Pixels
    """The network's inputs before normalization, (N, C, H, W)."""
    names: Sequence[str] = ()
    """The files that the images are from; empty if they are not from files."""
    typicality: npt.NDArray[np.float32] | None = None
    """Of images like the training images, the share that are as unusual as this one or more,
    (N,); None if the model's file has no statistics of its training images."""

    def unlike_training(self, rate: float = DEFAULT_REJECT) -> npt.NDArray[np.bool_] | None:
        """Return which images are unlike the training images, (N,).

        Args:
            rate: The share of images like the training images that are taken for unlike ones.
        """
        return None if self.typicality is None else self.typicality < rate

    @property
    def indices(self) -> npt.NDArray[np.int64]:
        """Position of the most probable class of each image, (N,); -1 if nothing is drawn."""
        found = np.where(self._blank, 0, self.probabilities.T).argmax(axis=0)
        return np.where(self._blank, -1, found)

    @property
    def labels(self) -> list[str | None]:
        """Name of the most probable class of each image; None if nothing is drawn."""
        return [self.class_names[index] if index >= 0 else None for index in self.indices]

    @property
    def classes(self) -> list[str | None]:
        """The same as `labels`, under the name that version 0.1 had for it."""
        return self.labels

    def top(self, k: int = 3) -> list[list[tuple[str, float]]]:
        """Return the `k` most probable classes of each image, with their probabilities.

        Raises:
            ConfigError: `k` is less than 1.
        """
        if k < 1:
            raise ConfigError(f"top({k}): ask for at least one class")
        best = np.argsort(-self.probabilities, axis=1, kind="stable")[:, :k]
        return [
            [] if blank else [(self.class_names[at], float(row[at])) for at in order]
            for row, order, blank in zip(self.probabilities, best, self._blank, strict=True)
        ]

    def to_dict(self) -> dict[str, list[Any]]:
        """Return plain lists with an entry for each image, which JSON can hold."""
        found = self.top(1)
        images: list[Any] = list(self.names) or list(range(len(self)))
        return {
            "image": images,
            "label": [one[0][0] if one else None for one in found],
            "probability": [one[0][1] if one else None for one in found],
            "probabilities": [
                None if blank else row.tolist()
                for row, blank in zip(self.probabilities, self._blank, strict=True)
            ],
        }

    def to_pandas(self) -> pd.DataFrame:
        """Return a table with a row for each image: image, label and probability.

        Raises:
            ConfigError: pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError:
            raise ConfigError("to_pandas() needs pandas: pip install pandas") from None
        columns = self.to_dict()
        del columns["probabilities"]
        return pd.DataFrame(columns)

    @property
    def _blank(self) -> npt.NDArray[np.bool_]:
        blank: npt.NDArray[np.bool_] = np.isnan(self.probabilities[:, 0])
        return blank

    def __len__(self) -> int:
        return len(self.probabilities)

    @overload
    def __getitem__(self, at: int) -> Prediction: ...

    @overload
    def __getitem__(self, at: slice) -> Predictions: ...

    def __getitem__(self, at: int | slice) -> Prediction | Predictions:
        if isinstance(at, slice):
            names = self.names[at] if self.names else ()
            typicality = None if self.typicality is None else self.typicality[at]
            return Predictions(
                self.class_names, self.probabilities[at], self.seen[at], names, typicality
            )
        place = range(len(self))[at]  # an IndexError ends a loop over the predictions
        (top,) = self[place : place + 1].top(len(self.class_names))
        share = None if self.typicality is None else float(self.typicality[place])
        return Prediction(self.seen[place], tuple(top), share)

    def __iter__(self) -> Iterator[Prediction]:
        return (self[at] for at in range(len(self)))

    def __repr__(self) -> str:
        shown = map(str, self[:_SHOWN])
        more = ", …" if len(self) > _SHOWN else ""
        images = "image" if len(self) == 1 else "images"
        return f"Predictions({len(self):,} {images}: {', '.join(shown)}{more})"
