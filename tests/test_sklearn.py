"""The estimator behaves as scikit-learn's tools expect one to."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn")

from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.utils.estimator_checks import check_estimator

from vggnet.sklearn import VGGClassifier

TINY = {
    "stages": ((8,),),
    "hidden": (),
    "threads": 1,
    "kernels": "torch",
    "batch_size": 32,
    "min_steps": 0,
}
FULL = load_digits()


class TableClassifier(VGGClassifier):  # type: ignore[misc]
    """Draws each value of a table as a grey square, so that a table becomes images.

    scikit-learn's checks train on tables of any values, which are no images.
    """

    def _read_images(self, X: Any) -> Any:  # noqa: N803
        side = int(np.ceil(np.sqrt(X.shape[1])))
        cells = np.full((len(X), side * side), 0.5)
        cells[:, : X.shape[1]] = 1 / (1 + np.exp(-np.clip(X.astype(float), -30, 30)))
        return super()._read_images(np.kron(cells.reshape(-1, side, side), np.ones((1, 4, 4))))


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
def test_scikit_learns_own_checks_pass() -> None:
    """All of scikit-learn's checks of a classifier pass, on tables that are drawn as images."""
    results = check_estimator(TableClassifier(epochs=10, lr=0.05, **TINY))
    assert {one["check_name"] for one in results if one["status"] != "passed"} <= {
        "check_array_api_input"  # runs only if an environment variable of SciPy is set
    }
    assert len(results) > 40


def test_images_are_read_in_every_usual_form() -> None:
    """Rows, (N, H, W) and channels last give the same network, and pickling keeps it."""
    images, labels = FULL.images[:60] / 16, FULL.target[:60] % 2
    forms = [images, images.reshape(60, -1), images[..., np.newaxis], (images * 255).round()]
    forms[-1] = forms[-1].astype(np.uint8)
    estimators = [VGGClassifier(epochs=2, **TINY).fit(one, labels) for one in forms]
    expected = estimators[0].predict_proba(images)
    for estimator, form in zip(estimators, forms, strict=True):
        np.testing.assert_allclose(estimator.predict_proba(form), expected, atol=1e-6)
    again = pickle.loads(pickle.dumps(estimators[0]))
    np.testing.assert_array_equal(again.predict(images), estimators[0].predict(images))
    wide = VGGClassifier(epochs=1, image_shape=(4, 16), **TINY).fit(forms[1], labels)
    assert wide.model_.card.image_shape == (1, 4, 16)
    assert wide.predict(forms[1]).shape == (60,)


def test_scikit_learns_tools_work_on_it() -> None:
    """A pipeline, a search over a setting and a calibration, each with cross-validation."""
    rows, labels = FULL.data[:90], FULL.target[:90] % 2
    estimator = make_pipeline(MinMaxScaler(clip=True), VGGClassifier(epochs=10, lr=0.01, **TINY))
    search = GridSearchCV(estimator, {"vggclassifier__lr": [1e-6, 0.01]}, cv=2)
    search.fit(rows, labels)
    assert search.best_params_ == {"vggclassifier__lr": 0.01}
    assert search.best_score_ > 0.6
    calibrated = CalibratedClassifierCV(clone(estimator), cv=2).fit(rows, labels)
    assert calibrated.predict_proba(rows).shape == (90, 2)


def test_what_cannot_be_trained_on_says_why() -> None:
    """Values, shapes, settings and classes; all are the errors that scikit-learn expects."""
    images, labels = FULL.images[:20], FULL.target[:20]
    with pytest.raises(ValueError, match=r"values from 0 to 16.*divide"):
        VGGClassifier(**TINY).fit(images, labels)
    with pytest.raises(ValueError, match="no square image"):
        VGGClassifier(**TINY).fit(images.reshape(20, -1)[:, :50] / 16, labels)
    with pytest.raises(ValueError, match="no images of shape"):
        VGGClassifier(image_shape=(7, 7), **TINY).fit(images.reshape(20, -1) / 16, labels)
    with pytest.raises(ValueError, match="only one class"):
        VGGClassifier(**TINY).fit(images / 16, labels * 0)
    with pytest.raises(ValueError, match="epochs"):
        VGGClassifier(epochs=-1, **TINY).fit(images / 16, labels)
    with pytest.raises(TypeError, match="no setting 'epoch'"):
        VGGClassifier(epoch=1)
    fitted = VGGClassifier(epochs=1, **TINY).fit(images / 16, labels)
    with pytest.raises(ValueError, match="trained on"):
        fitted.predict(images[:, :, :4] / 16)
