"""Load a model file and predict: uint8 images to classes and probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from vggnet.artifacts.model_card import ModelCard
from vggnet.artifacts.model_file import LoadedModel, Overrides, load_model
from vggnet.data.batches import Batches
from vggnet.data.dataset import LabeledImages
from vggnet.data.matching import TrainedOn
from vggnet.engine.device import allow_tf32, choose_device, place
from vggnet.engine.evaluate import Evaluation, evaluate
from vggnet.engine.session import Session
from vggnet.errors import DataError, ModelFileError
from vggnet.kernels import accelerate

BATCH_SIZE = 128
"""Images per batch; on two cores the fastest of 64 to 1,000, because it fits into the caches."""


@dataclass(frozen=True)
class Predictions:
    """Predictions for N images."""

    classes: list[str]
    """Name of the most probable class of each image."""
    indices: npt.NDArray[np.int64]
    """Index of that class, (N,)."""
    probabilities: npt.NDArray[np.float32]
    """Of every class, (N, num_classes); each row sums to 1."""


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
        self.network = model.network
        place(self.network, self.device)
        self._replica = accelerate(self.network, kernels).eval()
        self._preprocessing = model.preprocessing
        self._preprocess = model.preprocessing.on(self.device)

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
        pixels = torch.tensor(self._as_batch(images), device=self.device)
        parts = torch.split(pixels, BATCH_SIZE)
        logits = torch.cat([self._replica(self._preprocess(part)) for part in parts]).cpu()
        _check_finite(logits.numpy())
        probabilities = logits.softmax(1).numpy()
        indices = probabilities.argmax(axis=1)
        return Predictions([self.classes[index] for index in indices], indices, probabilities)

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
        return found

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
