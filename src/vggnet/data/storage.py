"""Datasets by name or path."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from vggnet.config import DataConfig, suggest
from vggnet.data.catalog import CATALOG
from vggnet.data.collection import Collection, Request, to_dataset
from vggnet.data.dataset import ARRAYS, Dataset
from vggnet.data.files import check_name, file_mode
from vggnet.data.known import load_entry
from vggnet.data.published import CatalogEntry
from vggnet.data.sources import KINDS, load_collection
from vggnet.errors import ConfigError
from vggnet.recipes import RECIPES, build_config


def load_dataset(
    dataset: str | Path = "mnist", data_dir: Path | None = None, **settings: Any
) -> Dataset:
    """Load a dataset's training and test images.

    Args:
        dataset: A name of `vggnet data list`, or the path of a folder, an archive or a file;
            docs/data.md lists what is read.
        data_dir: The only folder to look in for a name; its layout is torchvision's.
        settings: Other fields of `DataConfig`: `download`, `image_size`, `skip_bad`, …

    Raises:
        ConfigError: The name is unknown, or a setting does not fit.
        DataError: A file is missing, damaged, or not the published one.

    Examples:
        >>> vggnet.load_dataset("mnist")
        Dataset(mnist: 60,000 training and 10,000 test images, grey 28×28, 10 classes)
    """
    data = {"dataset": str(dataset), "data_dir": data_dir, **settings}
    return load_configured(build_config({"data": data}).data)


def load_configured(data: DataConfig, sha256: str | None = None) -> Dataset:
    """Load the dataset that a configuration names; as `load_dataset`.

    Args:
        data: The configuration.
        sha256: The dataset's hash when a run began. Version 0.1 sorted classes by name, as 1,
            10, 2; if the hash tells that it did, they are sorted so again.
    """
    if is_path(data.dataset):
        request = Request.of(data)
        name = dataset_name(data.dataset)
        check_name(name)
        found = load_path(data.dataset, data.data_dir, request)
        by_name = tuple(sorted(found.rows.classes))
        if sha256 not in (None, found.digest.sha256) and by_name != found.rows.classes:
            other = load_path(data.dataset, None, replace(request, class_order=by_name))
            found = other if other.digest.sha256 == sha256 else found
        return to_dataset(found, name, data.dataset)
    entry = find_entry(data.dataset)
    if data.image_size is not None:
        raise ConfigError(f"{entry.name} has a fixed size; --image-size is for your own images")
    return load_entry(entry, data.data_dir, download=data.download)


def load_path(dataset: str, data_dir: Path | None, request: Request) -> Collection:
    """Load a user's own data, whatever their kind.

    Raises:
        ConfigError: A data_dir is given too.
        DataError: As `load_collection`.
    """
    if data_dir is not None:
        raise ConfigError(f"{dataset} is a path itself; leave out --data-dir")
    return load_collection(Path(dataset), request)


def is_path(dataset: str) -> bool:
    """Return whether a dataset is a file or a folder, and not a name of the catalog.

    Raises:
        DataError: The system does not tell.
    """
    return dataset not in CATALOG and file_mode(Path(dataset)) is not None


def dataset_name(dataset: str) -> str:
    """Return what to call a dataset: its name, or that of its folder or file."""
    if dataset in CATALOG:
        return dataset
    return re.sub(r"(\.(zip|npz|parquet|[ct]sv))?(\.gz)?$", "", Path(dataset).resolve().name)


def find_entry(name: str) -> CatalogEntry:
    """Look a dataset up by name.

    Raises:
        ConfigError: There is none of that name.
    """
    if name in RECIPES:
        raise ConfigError(f"{name!r} is a recipe, not a dataset: pass recipe={name!r}, or --recipe")
    if name == ARRAYS:
        raise ConfigError(
            "the images were arrays of a program: pass them again, as in "
            "vggnet.train((images, labels), resume=...)"
        )
    if name not in CATALOG:
        raise ConfigError(
            f"unknown dataset {name!r}, and there is no such file or folder; "
            f"{suggest(name, CATALOG)}; formats of your own data: {KINDS}"
        )
    return CATALOG[name]
