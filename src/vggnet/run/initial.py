"""Start a run from the weights of a trained model: `--init`."""

from __future__ import annotations

import hashlib
import statistics
from dataclasses import dataclass
from pathlib import Path

from vggnet.artifacts.model_file import LoadedModel, Overrides, load_model
from vggnet.artifacts.pretrained import MEAN, STD, fetch_imagenet
from vggnet.artifacts.tensor_file import find_hub_weights
from vggnet.config import Config, ModelConfig
from vggnet.errors import ConfigError
from vggnet.model.transfer import Transfer, transfer_weights
from vggnet.model.vgg import VGG

IMAGENET = "imagenet"


@dataclass(frozen=True)
class Initial:
    """A trained model whose weights a run starts from."""

    model: LoadedModel
    name: str
    sha256: str

    def adopt(self, config: Config, channels: int) -> Config:
        """Take over the layers, and the normalization unless the settings name one.

        Args:
            config: The settings; layers that they do not name are the model's.
            channels: Of the images to train on.

        Raises:
            ConfigError: The settings name other layers.
        """
        source, chosen = self.model.network.config, config.model
        given = (chosen.architecture, chosen.stages, chosen.hidden, chosen.width)
        default = ModelConfig()
        named = given != (default.architecture, default.stages, default.hidden, default.width)
        if named and chosen.layers != source.layers:
            raise ConfigError(
                f"--init {self.name} has the layers of {source.name}, not of {chosen.name}; "
                "leave out --model, --stages, --hidden and --width"
            )
        model = chosen.model_copy(
            update={
                "architecture": source.architecture,
                "stages": source.stages,
                "hidden": source.hidden,
                "width": source.width,
                "batch_norm": source.batch_norm,
            }
        )
        scaling = {
            name: values if len(values) in (1, channels) else (statistics.mean(values),)
            for name, values in (("mean", self.model.card.mean), ("std", self.model.card.std))
            if name not in config.data.model_fields_set
        }
        data = config.data.model_copy(update=scaling)
        return config.model_copy(update={"model": model, "data": data})

    def transfer(self, network: VGG, classes: tuple[str, ...]) -> Transfer:
        """Put the weights into a network."""
        return transfer_weights(self.model.network, self.model.card.classes, network, classes)


def load_initial(config: Config) -> Initial | None:
    """Load the model that `train.init` names, if it names one.

    Raises:
        ConfigError: It is "imagenet", and there are no such weights of this network.
        DataError: They cannot be downloaded.
        ModelFileError: The file is not a VGG.
    """
    name = config.train.init
    if name is None:
        return None
    data = config.data
    said = {one: getattr(data, one) for one in ("mean", "std") if one in data.model_fields_set}
    path = Path(name)
    if name == IMAGENET:
        path, said = fetch_imagenet(config.model, data.download), {"mean": MEAN, "std": STD}
    model = load_model(path, Overrides(**said))
    file = find_hub_weights(path) if path.is_dir() else path
    with file.open("rb") as opened:
        sha256 = hashlib.file_digest(opened, "sha256").hexdigest()
    return Initial(model, path.name, sha256)
