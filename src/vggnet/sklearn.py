"""A VGG network as an estimator of scikit-learn, which must be installed."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from vggnet.artifacts.model_card import build_card
from vggnet.artifacts.model_file import LoadedModel
from vggnet.config import Config, list_keywords
from vggnet.data.dataset import ARRAYS, Dataset, LabeledImages
from vggnet.data.sources.arrays import Numbers, Pixels, scale_pixels, shape_images
from vggnet.engine.device import choose_device, computing, own_random_numbers
from vggnet.engine.environment import describe_environment
from vggnet.engine.session import Session
from vggnet.errors import VggnetError
from vggnet.inference.predict import Classifier
from vggnet.recipes import nest_settings, resolve_config
from vggnet.run import fit_to_data
from vggnet.run.in_memory import train_in_memory
from vggnet.run.preflight import complete_training

_OMITTED = {"init", "init_lr", "freeze", "patience", "keep"}
"""Settings that need the file of a model, or images to validate on."""

_SETTINGS = tuple(
    name
    for name, (section, _) in list_keywords().items()
    if section != "data" and name not in _OMITTED
)
"""`fit` gets the images, so no setting says where they are."""


class VGGClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A VGG network with scikit-learn's interface; it writes no files.

    Images are whole numbers from 0 to 255 or fractions from 0 to 1: (N, H, W), (N, C, H, W),
    (N, H, W, C) with one or three channels, or (N, values), as scikit-learn's own tools want them.

    Args:
        recipe: The recipe to start from: "fast", "best" or "article".
        image_shape: Shape of an image that is a row of values: (H, W), (C, H, W) or (H, W, C);
            default: square, in grey or colour.
        settings: Values that override the recipe, by the names of the command line's flags, such
            as `epochs=2, lr=0.01`; None: the recipe's.

    Attributes:
        classes_: The labels that occur in `y`, sorted.
        model_: The trained `Classifier`, which can be exported and saved.

    Raises:
        ValueError: From `fit` and `predict`, if the images cannot be read; the message says why.

    Examples:
        >>> from sklearn.datasets import load_digits
        >>> from vggnet.sklearn import VGGClassifier
        >>> images, labels = load_digits(return_X_y=True)
        >>> images = images / 16
        >>> model = VGGClassifier(stages="16/32", hidden="32", epochs=5, threads=1)
        >>> model.fit(images[:1000], labels[:1000]).score(images[1000:], labels[1000:]) > 0.8
        True
    """

    def __init__(
        self, *, recipe: str = "fast", image_shape: tuple[int, ...] | None = None, **settings: Any
    ) -> None:
        if unknown := settings.keys() - set(_SETTINGS):
            raise TypeError(f"VGGClassifier has no setting {unknown.pop()!r}")
        self.recipe = recipe
        self.image_shape = image_shape
        for name in _SETTINGS:
            setattr(self, name, settings.get(name))

    def fit(self, X: Any, y: Any) -> Self:  # noqa: N803
        """Train a new network on images and labels, (N,)."""
        X, y = validate_data(self, X, y, allow_nd=True)  # noqa: N806
        check_classification_targets(y)
        classes, numbers = np.unique(y, return_inverse=True)
        self.classes_: npt.NDArray[Any] = classes
        if len(self.classes_) < 2:
            raise ValueError(f"there is only one class, {self.classes_[0]}, and nothing to learn")
        with _value_errors():
            images = self._read_images(X)
            names = tuple(map(str, self.classes_.tolist()))
            examples = LabeledImages(images, numbers, len(names), "X")
            self.model_: Classifier = self._train(Dataset("arrays", names, examples, examples, ""))
        return self

    def predict_proba(self, X: Any) -> npt.NDArray[np.float32]:  # noqa: N803
        """Return the probability of each class, (N, num_classes), in the order of `classes_`."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, allow_nd=True)  # noqa: N806
        with _value_errors():
            images = self._read_images(X)
            if images.shape[1:] != self.model_.card.image_shape:
                raise ValueError(
                    f"images of shape {images.shape[1:]}, and the network was trained on "
                    f"{self.model_.card.image_shape}"
                )
            return self.model_.predict(images).probabilities

    def predict(self, X: Any) -> npt.NDArray[Any]:  # noqa: N803
        """Return the most probable class of each image, (N,)."""
        probabilities = self.predict_proba(X)
        found: npt.NDArray[Any] = self.classes_[probabilities.argmax(axis=1)]
        return found

    def _config(self) -> Config:
        given = {name: value for name in _SETTINGS if (value := getattr(self, name)) is not None}
        data = {"dataset": ARRAYS}
        return resolve_config({"recipe": self.recipe, "data": data}, nest_settings(given))

    def _train(self, dataset: Dataset) -> Classifier:
        config = fit_to_data(self._config(), dataset, Session())
        config = complete_training(config, len(dataset.train), has_validation=False)
        train = config.train
        device = choose_device(train.device)
        with computing(train.precision, train.threads), own_random_numbers(device):
            network = train_in_memory(dataset.train, config, device)
        card = build_card(
            config, dataset.classes, dataset.shape, "", describe_environment(), test=None
        )
        return Classifier(LoadedModel(network, card), str(device), train.kernels)

    def _read_images(self, X: Numbers) -> Pixels:  # noqa: N803
        """Return images as uint8, (N, C, H, W)."""
        if X.ndim == 2 and self.image_shape:
            shape = self.image_shape if len(self.image_shape) == 3 else (1, *self.image_shape)
            if X.shape[1] != np.prod(shape):
                raise ValueError(
                    f"rows of {X.shape[1]} values are no images of shape {self.image_shape}"
                )
            X = X.reshape(-1, *shape)  # noqa: N806
        return shape_images(scale_pixels(X, "X"), "X")


def _list_parameters() -> inspect.Signature:
    """Return the signature of `VGGClassifier`, with a parameter for each setting.

    scikit-learn reads it to copy estimators and to search for settings.
    """
    signature = inspect.signature(VGGClassifier.__init__)
    own = [one for one in signature.parameters.values() if one.kind is not one.VAR_KEYWORD]
    kind = inspect.Parameter.KEYWORD_ONLY
    derived = [inspect.Parameter(name, kind, default=None) for name in _SETTINGS]
    return signature.replace(parameters=[*own, *derived])


VGGClassifier.__init__.__signature__ = _list_parameters()  # type: ignore[attr-defined]


@contextmanager
def _value_errors() -> Iterator[None]:
    """Raise what is wrong with the data or a setting as scikit-learn's tools expect it."""
    try:
        yield
    except VggnetError as error:
        raise ValueError(str(error)) from None
