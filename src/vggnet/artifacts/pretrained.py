"""Networks trained on ImageNet, as torchvision publishes them."""

from __future__ import annotations

import hashlib
from pathlib import Path

from vggnet.config import ModelConfig
from vggnet.data.download import fetch
from vggnet.data.files import cache_folder
from vggnet.errors import ConfigError, DataError

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Normalization of torchvision's ImageNet networks, for pixels in [0, 1]."""

LICENCE = "BSD 3-Clause, torchvision; trained on ImageNet, whose images have terms of their own"

_SERVER = "https://download.pytorch.org/models/"
_FILES = {
    ("vgg-a", False): "vgg11-8a719046.pth",
    ("vgg-a", True): "vgg11_bn-6002323d.pth",
    ("vgg-b", False): "vgg13-19584684.pth",
    ("vgg-b", True): "vgg13_bn-abd245e5.pth",
    ("vgg-d", False): "vgg16-397923af.pth",
    ("vgg-d", True): "vgg16_bn-6c64b313.pth",
    ("vgg-e", False): "vgg19-dcbb9e9d.pth",
    ("vgg-e", True): "vgg19_bn-c79401a0.pth",
}
"""Architecture and batch norm to torchvision's file, named with the start of its SHA-256."""


def fetch_imagenet(config: ModelConfig, download: bool, server: str = _SERVER) -> Path:
    """Return torchvision's weights of a network, downloaded if they are not in the cache.

    Args:
        config: Its architecture and batch norm choose the file.
        download: Whether to download.
        server: Address that the file's name is appended to.

    Raises:
        ConfigError: torchvision publishes no weights for this network.
        DataError: The file is not here and may not be downloaded, or is not the published one.
    """
    name = _FILES.get((config.architecture, config.batch_norm))
    if name is None or config.name != config.architecture:
        raise ConfigError(
            f"there are no ImageNet weights of {config.name}; use --model vgg-a, vgg-b, vgg-d or "
            "vgg-e, with or without --batch-norm"
        )
    folder = cache_folder("weights")
    if folder is None:
        raise DataError("there is no cache folder; set VGGNET_CACHE_DIR to a folder")
    if not download and not (folder / name).is_file():
        raise DataError(f"{folder / name} does not exist, and --no-download forbids to fetch it")
    return fetch(name, folder, [server + name], lambda path: _check(path, name))


def _check(path: Path, name: str) -> None:
    """Compare a file with the hash in its published name.

    Raises:
        DataError: It is another file.
    """
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    published = name.removesuffix(".pth").rpartition("-")[2]
    if not sha256.startswith(published):
        raise DataError(
            f"{path} is not the published file: its SHA-256 begins with {sha256[:8]}, expected "
            f"{published}"
        )
