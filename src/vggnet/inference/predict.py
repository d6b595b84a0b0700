"""Load a model file, and use the model: predict, evaluate, export, save."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vggnet.artifacts.model_card import ModelCard
from vggnet.artifacts.model_file import (
    LoadedModel,
    Overrides,
    check_suffix,
    load_model,
    save_model,
)
from vggnet.artifacts.model_page import render_model
from vggnet.artifacts.outputs import MODEL, check_output
from vggnet.data.batches import Batches
from vggnet.data.dataset import Dataset, LabeledImages, describe_shape
from vggnet.data.matching import TrainedOn, load_to_evaluate, read_examples, relabel
from vggnet.engine.calibration import to_probabilities
from vggnet.engine.device import allow_tf32, choose_device, place
from vggnet.engine.evaluate import Evaluation, evaluate
from vggnet.engine.features import trace
from vggnet.engine.session import Session
from vggnet.engine.typicality import layer_values
from vggnet.errors import ConfigError, DataError, ImageError, ModelFileError
from vggnet.inference.evaluation import ModelEvaluation
from vggnet.inference.explain import Explanation, explain
from vggnet.inference.inputs import see_images
from vggnet.inference.predictions import Predictions
from vggnet.kernels import accelerate
from vggnet.model.vgg import VGG

_log = logging.getLogger(__name__)

BATCH_SIZE = 128
"""Images per batch; on two cores the fastest of 64 to 1,000, because it fits into the caches."""


class Classifier:
    """A trained network, which predicts, and its description.

    Args:
        model: The network and its description.
        device: Where to compute; see `choose_device`.
        kernels: Convolutions on a CPU: "auto", "winograd" or "torch".
        path: Where the model is from.

    Examples:
        >>> vggnet.load("mnist_vggnet.pth", device="cpu")
        Classifier(..., 10 classes, grey 28×28, ... parameters, cpu)
    """

    def __init__(
        self,
        model: LoadedModel,
        device: str = "auto",
        kernels: str = "auto",
        path: Path | None = None,
    ) -> None:
        self.device: torch.device = choose_device(device)
        self.card: ModelCard = model.card
        if not self.card.calibration:
            _log.info("the model's file has no calibration: probabilities are a plain softmax")
        self.network: VGG = model.network
        self.path = path
        self._kernels = kernels
        place(self.network, self.device)
        self._replica = accelerate(self.network, kernels).eval()
        self._preprocessing = model.preprocessing
        self.preprocess: Callable[[Tensor], Tensor] = model.preprocessing.on(self.device)
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
    def predict(self, images: Any, *, prepare: bool | None = None) -> Predictions:
        """Classify images of any kind.

        Images are prepared as `vggnet predict` does: a digit on any paper is redrawn in MNIST's
        style, if that is what the model was trained on; other images are resized and centered.

        Args:
            images: The path of an image, a folder, a zip or a file of digits, or a list of
                paths; a Pillow image; an array or a tensor, (H, W), (C, H, W) or (H, W, C), or
                several, (N, …), or (N, values); or a list of images. Values are whole numbers
                from 0 to 255, or fractions from 0 to 1. For MNIST: white strokes on black.
            prepare: Prepare the images, or use them unchanged; default: use the rows of data
                files, and arrays of the model's own size, unchanged, and prepare all others.

        Raises:
            DataError: They are none that can be read; the message says why.
            ImageError: A file cannot be read, or is not prepared and not of the model's size.
            ModelFileError: The network's outputs are not finite.

        Examples:
            >>> model = vggnet.load("mnist_vggnet.pth")
            >>> predictions = model.predict("digit.jpg")
            >>> len(predictions), predictions[0].seen.shape
            (1, (1, 28, 28))
        """
        seen = see_images(images, self.trained_on, prepare)
        parts = torch.split(torch.tensor(seen.images, device=self.device), BATCH_SIZE)
        found = [self._run(part) for part in parts]
        logits = torch.cat([one for one, _ in found]).cpu()
        _check_finite(logits.numpy())
        probabilities = to_probabilities(logits, self.card.calibration).numpy()
        ranks = [one for _, one in found if one is not None]
        typicality = np.concatenate(ranks) if ranks else None
        for values in (probabilities, typicality):
            if values is not None:
                values[~seen.drawn] = np.nan
        return Predictions(self.classes, probabilities, seen.images, seen.names, typicality)

    __call__ = predict

    @allow_tf32(False)
    @torch.no_grad()
    def logits(self, images: Any) -> Tensor:
        """Return the network's outputs for images as in `predict`, (N, num_classes), on the CPU.

        Raises:
            DataError, ImageError, ModelFileError: As `predict`.
        """
        seen = see_images(images, self.trained_on, None).images
        parts = torch.split(torch.tensor(seen, device=self.device), BATCH_SIZE)
        logits = torch.cat([self._replica(self.preprocess(part)) for part in parts]).cpu()
        _check_finite(logits.numpy())
        return logits

    @allow_tf32(False)
    def explain(self, image: Any, label: str | None = None) -> Explanation:
        """Say where in an image the evidence for a class lies.

        Args:
            image: An image of any kind; see `predict`.
            label: The class; default: the predicted one.

        Raises:
            ConfigError: There is no such class.
            ImageError: Nothing is drawn in the image.
            DataError, ModelFileError: As `predict`.

        Examples:
            >>> model = vggnet.load("mnist_vggnet.pth")
            >>> model.explain("digit.jpg").heat.shape
            (28, 28)
        """
        if label is not None and label not in self.classes:
            raise ConfigError(f"no class {label!r}; there are {', '.join(self.classes[:20])}")
        index = None if label is None else self.classes.index(label)
        seen = see_images(image, self.trained_on, None)
        if not seen.drawn[0]:
            raise ImageError("nothing is drawn in the image, so there is nothing to explain")
        return explain(self, seen.images[0], index)

    @allow_tf32(False)
    def evaluate(
        self, dataset: str | Path | LabeledImages | Dataset | tuple[Any, Any] | None = None
    ) -> Evaluation:
        """Compare the predictions with the labels.

        Args:
            dataset: A `Dataset`, or the name or path of one, of which the test images are used;
                or images and labels, as `Dataset.from_arrays` takes them. Default: the dataset
                that the model was trained on. Images of other sizes are fitted to the model's.

        Raises:
            ConfigError: The dataset is unknown.
            DataError: The images or classes are not the model's.
            ModelFileError: The network's outputs are not finite.

        Examples:
            >>> model = vggnet.load("mnist_vggnet.pth")
            >>> found = model.evaluate("mnist")
            >>> found.accuracy > 0.9, found.confusion_matrix.shape
            (True, (10, 10))
        """
        examples = self._find_examples(dataset)
        if examples.images.shape[1:] != self.card.image_shape:
            raise DataError(
                f"{examples.source} has images of shape {examples.images.shape[1:]}, "
                f"and the model takes {self.card.image_shape}"
            )
        if examples.num_classes != len(self.classes):
            raise DataError(
                f"{examples.source} has {examples.num_classes} classes, "
                f"and the model has {len(self.classes)}"
            )
        batches = Batches(examples, self.device, self._preprocessing, batch_size=BATCH_SIZE)
        found = evaluate(self._replica, batches, Session())
        _check_finite(found.logits)
        found = replace(found, calibration=self.card.calibration)
        return ModelEvaluation.of(found, self.classes, examples.images)

    def _run(self, pixels: Tensor) -> tuple[Tensor, npt.NDArray[np.float32] | None]:
        """Return logits and typicality of a batch."""
        inputs, typicality = self.preprocess(pixels), self.card.typicality
        if not typicality:
            return self._replica(inputs), None
        found = trace(self._replica, inputs)
        return found.logits, typicality.rank(layer_values(found))

    def _find_examples(
        self, dataset: str | Path | LabeledImages | Dataset | tuple[Any, Any] | None
    ) -> LabeledImages:
        """Return the images to evaluate on, with the labels numbered as the model's."""
        if isinstance(dataset, LabeledImages):
            return dataset
        trained_on = self.trained_on
        if isinstance(dataset, Dataset):
            return relabel(dataset.test, dataset.classes, trained_on)
        if isinstance(dataset, tuple):
            return read_examples(dataset, trained_on)
        name = trained_on.dataset or "mnist" if dataset is None else str(dataset)
        test, warnings = load_to_evaluate(name, trained_on)
        for warning in warnings:
            _log.warning("%s", warning)
        return test

    def export(
        self,
        kind: str = "onnx",
        output: str | Path | None = None,
        *,
        int8: bool = False,
        data_dir: str | Path | None = None,
        force: bool = False,
    ) -> Path:
        """Convert the model for other programs, check that the result computes the same.

        Args:
            kind: "onnx", "pt2" (torch.export), "safetensors", "hub" (a folder for Hugging Face's
                Hub), "html" (a page with the network inside), or "c".
            output: The file or folder; default: the model's name, in the current folder.
            int8: Quantize to 8 bits, with "onnx" and "c" only.
            data_dir: Where the model's dataset is.
            force: Replace an existing file that vggnet did not write.

        Returns:
            The file or folder.

        Raises:
            ConfigError: The kind is unknown, or a package is missing.
            ExportError: The results differ; no file is left.
            OutputError: The file cannot be written.

        Examples:
            >>> vggnet.load("mnist_vggnet.pth").export("safetensors").name
            'mnist_vggnet.safetensors'
        """
        from vggnet.inference.convert import Target, convert

        network = copy.deepcopy(self.network).cpu()
        target = Target(
            kind=kind,
            output=Path(output) if output else None,
            int8=int8,
            data_dir=Path(data_dir) if data_dir else None,
            force=force,
        )
        threads = torch.get_num_threads()
        return convert(LoadedModel(network, self.card), self.path, target, threads).path

    def save(self, path: str | Path, *, force: bool = False) -> Path:
        """Write the model to a file, `.pth` or `.safetensors`, and return its path.

        Args:
            path: The file.
            force: Replace an existing file that vggnet did not write.

        Raises:
            ConfigError: The suffix is another, or the file is not vggnet's.
            OutputError: The file cannot be written; an existing file is unchanged.

        Examples:
            >>> vggnet.load("mnist_vggnet.pth").save("copy.safetensors").name
            'copy.safetensors'
        """
        path = Path(path)
        check_suffix(path)
        check_output(path, MODEL, force=force)
        save_model(path, self.network, self.card)
        return path

    def __reduce__(self) -> tuple[Any, ...]:
        # Compiled kernels cannot be pickled; they are loaded again.
        loaded = LoadedModel(self.network, self.card)
        return type(self), (loaded, str(self.device), self._kernels, self.path)

    def __repr__(self) -> str:
        count = sum(one.numel() for one in self.network.parameters())
        return (
            f"Classifier({self.network.config.name}, {len(self.classes)} classes, "
            f"{describe_shape(self.card.image_shape)}, {count:,} parameters, {self.device})"
        )

    def _repr_html_(self) -> str:
        return render_model(self.network, self.card)


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

    Examples:
        >>> vggnet.load("mnist_vggnet.pth").classes
        ('0', '1', '2', '3', '4', '5', '6', '7', '8', '9')
    """
    overrides = Overrides(
        mean=_as_tuple(mean),
        std=_as_tuple(std),
        image_size=image_size,
        classes=None if classes is None else tuple(classes),
    )
    return Classifier(load_model(Path(path), overrides), device, kernels, Path(path))


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
