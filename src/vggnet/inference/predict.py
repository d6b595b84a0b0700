"""A model file made ready to answer: uint8 images to classes and probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from vggnet.artifacts.model_file import LoadedModel, ModelCard, load_model
from vggnet.data.batches import Batches
from vggnet.data.dataset import LabeledImages
from vggnet.data.matching import Learnt
from vggnet.engine.device import choose_device, place
from vggnet.engine.evaluate import Evaluation, evaluate
from vggnet.engine.session import Session
from vggnet.errors import DataError
from vggnet.kernels import accelerate

BATCH_SIZE = 128
"""Images at a time: on two cores 128 was the fastest of 64 to 1,000 (the caches hold it)."""


@dataclass(frozen=True)
class Predictions:
    """Answers for N images."""

    classes: list[str]
    """The likeliest class of each image, by name."""
    indices: npt.NDArray[np.int64]
    """The same by number, (N,)."""
    probabilities: npt.NDArray[np.float32]
    """Of every class, (N, num_classes); each row adds up to 1."""


class Classifier:
    """A trained network that takes images as uint8 arrays.

    Args:
        model: As `load_model` returns it.
        device: Where to compute; see `choose_device`.
        kernels: On a CPU, whose convolutions: "auto", "winograd" or "torch".
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
    def learnt(self) -> Learnt:
        """What the model was trained on, as far as its file says."""
        data = (self.card.config or {}).get("data", {})
        return Learnt(
            self.classes, self.card.image_shape, data.get("dataset"), self.card.dataset_sha256
        )

    @torch.no_grad()
    def predict(self, images: npt.NDArray[np.uint8]) -> Predictions:
        """Classify images that look as the training data do.

        Args:
            images: uint8; one grey image (H, W), several (N, H, W), or (N, C, H, W).
                For MNIST: white strokes on black, 28×28.

        Raises:
            DataError: They are not uint8, or not of the network's size and channels.
        """
        pixels = torch.tensor(self._as_batch(images), device=self.device)
        logits = [self._replica(self._preprocess(part)) for part in torch.split(pixels, BATCH_SIZE)]
        probabilities = torch.cat(logits).softmax(1).cpu().numpy()
        indices = probabilities.argmax(axis=1)
        return Predictions([self.classes[index] for index in indices], indices, probabilities)

    def evaluate(self, examples: LabeledImages) -> Evaluation:
        """Compare the network's answers with the labels.

        Raises:
            DataError: The images or classes are not those that the network takes.
        """
        self._as_batch(examples.images)
        if examples.num_classes != len(self.classes):
            raise DataError(
                f"{examples.source} has {examples.num_classes} classes, "
                f"the model tells {len(self.classes)} apart"
            )
        batches = Batches(examples, self.device, self._preprocessing, batch_size=BATCH_SIZE)
        return evaluate(self._replica, batches, Session())

    def _as_batch(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        if not isinstance(images, np.ndarray) or images.dtype != np.uint8:
            found = getattr(images, "dtype", type(images).__name__)
            raise DataError(f"images must be a NumPy array of uint8, 0 to 255, not {found}")
        shape = images.shape
        if images.ndim == 2:
            images = images[np.newaxis]
        if images.ndim == 3:
            images = images[:, np.newaxis]
        config = self.network.config
        fits = images.ndim == 4 and images.shape[1] == config.in_channels and len(images)
        if not fits or max(images.shape[2:]) > config.image_size:
            raise DataError(
                f"images of shape {shape} do not fit this network, which takes "
                f"(N, {', '.join(map(str, self.card.image_shape))})"
            )
        return images


def load(path: str | Path, device: str = "auto", kernels: str = "auto") -> Classifier:
    """Load a model file, ours or one that the article's script saved.

    Args:
        path: A `.pth` or `.safetensors` file. Loading never runs code from it.
        device: "auto", "cpu", "cuda", "cuda:N", "mps" or "xpu".
        kernels: On a CPU, whose convolutions: "auto", "winograd" or "torch".

    Raises:
        ModelFileError: It is missing, damaged, or not a VGG network.
        DeviceError: The device is not there.
    """
    return Classifier(load_model(Path(path)), device, kernels)
