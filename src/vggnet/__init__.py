"""Train, use and benchmark VGG networks on MNIST, similar datasets and your own images.

`vggnet.train()` trains and saves a model; `vggnet.load(path)` returns a `Classifier`, which
predicts, evaluates and exports. `vggnet.sklearn.VGGClassifier` does the same as an estimator of
scikit-learn. The command line, `vggnet.cli`, has the same settings under the same names.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vggnet.config import Config
    from vggnet.data.dataset import Dataset
    from vggnet.data.storage import load_dataset
    from vggnet.errors import VggnetError
    from vggnet.inference.predict import Classifier, load
    from vggnet.inference.predictions import Predictions
    from vggnet.run import Reporter, TrainResult, train

__version__ = "0.1.0"

__all__ = [
    "Classifier",
    "Config",
    "Dataset",
    "Predictions",
    "Reporter",
    "TrainResult",
    "VggnetError",
    "__version__",
    "load",
    "load_dataset",
    "train",
]

_HOMES = {
    "Classifier": "vggnet.inference.predict",
    "Config": "vggnet.config",
    "Dataset": "vggnet.data.dataset",
    "Predictions": "vggnet.inference.predictions",
    "Reporter": "vggnet.run",
    "TrainResult": "vggnet.run",
    "VggnetError": "vggnet.errors",
    "load": "vggnet.inference.predict",
    "load_dataset": "vggnet.data.storage",
    "train": "vggnet.run",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use, because importing torch takes a second."""
    if name not in _HOMES:
        raise AttributeError(f"module 'vggnet' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
