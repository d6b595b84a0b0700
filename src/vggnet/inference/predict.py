"""Load a model file and predict: uint8 images to classes and probabilities."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vggnet.artifacts.model_card import ModelCard
from vggnet.artifacts.model_file import LoadedModel, Overrides, load_model
from vggnet.data.batches import Batches
from vggnet.data.dataset import LabeledImages
from vggnet.data.matching import TrainedOn
from vggnet.engine.calibration import to_probabilities
from vggnet.engine.device import allow_tf32, choose_device, place
from vggnet.engine.evaluate import Evaluation, evaluate
from vggnet.engine.features import trace
from vggnet.engine.session import Session
from vggnet.engine.typicality import layer_values
from vggnet.errors import ConfigError, DataError, ModelFileError
from vggnet.inference.explain import Explanation, explain
from vggnet.kernels import accelerate

DEFAULT_REJECT = 0.01
"""Share of images like the training images that are flagged as unlike them."""

BATCH_SIZE = 128
"""Images per batch; on two cores the fastest of 64 to 1,000, because it fits into the caches."""


_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Predictions:
    """Predictions for N images."""

    classes: list[str]
    """Name of the most probable class of each image."""
    indices: npt.NDArray[np.int64]
    """Index of that class, (N,)."""
    probabilities: npt.NDArray[np.float32]
    """Of every class, (N, num_classes); each row sums to 1."""
    typicality: npt.NDArray[np.float32] | None = None
    """Of images like the training images, the share that are as unusual as this one or more,
    (N,); None if the model's file has no statistics of its training images."""

    def __getitem__(self, rows: slice) -> Predictions:
        """Return the predictions for some of the images."""
        typicality = None if self.typicality is None else self.typicality[rows]
        return Predictions(
            self.classes[rows], self.indices[rows], self.probabilities[rows], typicality
        )

    def unlike_training(self, rate: float = DEFAULT_REJECT) -> npt.NDArray[np.bool_] | None:
        """Return which images are unlike the training images, (N,).

        Args:
            rate: The share of images like the training images that are taken for unlike ones.
        """
        return None if self.typicality is None else self.typicality < rate


class Classifier:
    """A trained network that predicts from uint8 arrays.

    Args:
        model: The network and its description.
        device: Where to compute; see `choose_device`.
        kernels: Convolutions on a CPU: "auto", "winograd" or "torch".
    """

    def __init__(self, model: LoadedModel, device: str = "auto", kernels: str = "auto") -> None:
        self.device = choose_device(device)
        self.card: ModelCard = model.card
        if not self.card.calibration:
            _log.info("the model's file has no calibration: probabilities are a plain softmax")
        self.network = model.network
        place(self.network, self.device)
        self._replica = accelerate(self.network, kernels).eval()
        self._preprocessing = model.preprocessing
        self.preprocess = model.preprocessing.on(self.device)
        """Pixels (N, C, H, W) to the network's input, on the device."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the network's outputs."""
        return self.card.classes

    @property
    def trained_on(self) -> TrainedOn:
        """The images that the model was trained on, as far as its file says."""
        return self.card.trained_on

    @torch.no_grad()
    @allow_tf32(False)
    def predict(self, images: npt.NDArray[np.uint8]) -> Predictions:
        """Classify images of the same size and kind as the training data.

        Args:
            images: uint8; one gray image (H, W), several (N, H, W), or (N, C, H, W).
                For MNIST: white strokes on black, 28×28.

        Raises:
            DataError: They are not uint8, or do not have the model's size and channels.
            ModelFileError: The network's outputs are not finite.
        """
        parts = torch.split(self._as_pixels(images), BATCH_SIZE)
        found = [self._run(part) for part in parts]
        logits = torch.cat([one for one, _ in found])
        _check_finite(logits.numpy())
        probabilities = to_probabilities(logits, self.card.calibration).numpy()
        indices = probabilities.argmax(axis=1)
        typicality = [one for _, one in found if one is not None]
        return Predictions(
            [self.classes[index] for index in indices],
            indices,
            probabilities,
            np.concatenate(typicality) if typicality else None,
        )

    @allow_tf32(False)
    @torch.no_grad()
    def logits(self, images: npt.NDArray[np.uint8]) -> Tensor:
        """Return the network's outputs for images as in `predict`, (N, num_classes), on the CPU.

        Raises:
            DataError, ModelFileError: As `predict`.
        """
        parts = torch.split(self._as_pixels(images), BATCH_SIZE)
        logits = torch.cat([self._replica(self.preprocess(part)) for part in parts]).cpu()
        _check_finite(logits.numpy())
        return logits

    @allow_tf32(False)
    def explain(self, image: npt.NDArray[np.uint8], label: str | None = None) -> Explanation:
        """Say where in an image the evidence for a class lies.

        Args:
            image: uint8, (H, W) or (C, H, W), as in `predict`.
            label: The class; default: the predicted one.

        Raises:
            ConfigError: There is no such class.
            DataError, ModelFileError: As `predict`.
        """
        if label is not None and label not in self.classes:
            raise ConfigError(f"no class {label!r}; there are {', '.join(self.classes[:20])}")
        index = None if label is None else self.classes.index(label)
        return explain(self, self._as_batch(image[np.newaxis])[0], index)

    @allow_tf32(False)
    def evaluate(self, examples: LabeledImages) -> Evaluation:
        """Compare the predictions with the labels.

        Raises:
            DataError: The images or classes are not the model's.
            ModelFileError: The network's outputs are not finite.
        """
        self._as_batch(examples.images)
        if examples.num_classes != len(self.classes):
            raise DataError(
                f"{examples.source} has {examples.num_classes} classes, "
                f"and the model has {len(self.classes)}"
            )
        batches = Batches(examples, self.device, self._preprocessing, batch_size=BATCH_SIZE)
        found = evaluate(self._replica, batches, Session())
        _check_finite(found.logits)
        return replace(found, calibration=self.card.calibration)

    def _run(self, pixels: Tensor) -> tuple[Tensor, npt.NDArray[np.float32] | None]:
        """Return logits and typicality of a batch."""
        found = trace(self._replica, self.preprocess(pixels))
        typicality = self.card.typicality
        ranks = typicality.rank(layer_values(found)) if typicality else None
        return found.logits.cpu(), ranks

    def _as_pixels(self, images: npt.NDArray[np.uint8]) -> Tensor:
        return torch.tensor(self._as_batch(images), device=self.device)

    def _as_batch(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Return images as (N, C, H, W)."""
        if not isinstance(images, np.ndarray) or images.dtype != np.uint8:
            found = getattr(images, "dtype", type(images).__name__)
            raise DataError(f"images must be a NumPy array of uint8, 0 to 255, not {found}")
        shape = images.shape
        if images.ndim == 2:
            images = images[np.newaxis]
        if images.ndim == 3:
            images = images[:, np.newaxis]
        if images.shape[1:] != self.card.image_shape or not len(images):
            raise DataError(
                f"images have the shape {shape}; this model takes "
                f"(N, {', '.join(map(str, self.card.image_shape))})"
            )
        return images


def load(
    path: str | Path,
    device: str = "auto",
    kernels: str = "auto",
    *,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    image_size: int | None = None,
    classes: Sequence[str] | None = None,
) -> Classifier:
    """Load a model file, or the weights of a VGG that another project saved.

    What the file does not say is assumed, and logged as a warning of the logger `vggnet`.

    Args:
        path: A file of PyTorch or safetensors, or a folder of Hugging Face's Hub. Loading
            never runs code from it.
        device: "auto", "cpu", "cuda", "cuda:N", "mps" or "xpu".
        kernels: Convolutions on a CPU: "auto", "winograd" or "torch".
        mean, std: Normalization of pixels in [0, 1], one value or one per channel, in
            place of the file's.
        image_size: Height and width of the images, in place of the file's.
        classes: Names of the classes, in the order of the outputs, in place of the file's.

    Raises:
        ModelFileError: The file is missing, damaged, or not a VGG.
        ConfigError: One of the last four does not fit the network.
        DeviceError: The device is not available.
    """
    overrides = Overrides(
        mean=_as_tuple(mean),
        std=_as_tuple(std),
        image_size=image_size,
        classes=None if classes is None else tuple(classes),
    )
    return Classifier(load_model(Path(path), overrides), device, kernels)


def _as_tuple(values: float | Sequence[float] | None) -> tuple[float, ...] | None:
    if values is None:
        return None
    return tuple(values) if isinstance(values, Sequence) else (values,)


def _check_finite(logits: npt.NDArray[np.floating]) -> None:
    if broken := int((~np.isfinite(logits).all(axis=1)).sum()):
        raise ModelFileError(
            f"the network's outputs are NaN or infinite for {broken:,} of {len(logits):,} images; "
            "its weights are too large, or the normalization is not the one it was trained with"
        )
