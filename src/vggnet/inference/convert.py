"""Export a model: choose the file and the images to compare on, write, and check."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vggnet.artifacts.export import TARGETS, check_target, export_model
from vggnet.artifacts.export.c_file import export_c
from vggnet.artifacts.export.evidence import choose_pixels, find_dataset
from vggnet.artifacts.export.int8 import export_int8
from vggnet.artifacts.export.program import EndToEndModel
from vggnet.artifacts.model_file import LoadedModel
from vggnet.config import suggest
from vggnet.data.dataset import Dataset
from vggnet.engine.device import computing
from vggnet.errors import ConfigError
from vggnet.inference.read import choose_reading
from vggnet.inference.reading import Reading
from vggnet.page.export import export_page


@dataclass(frozen=True)
class Target:
    """What to write."""

    kind: str
    """A key of `TARGETS`."""
    output: Path | None = None
    """Default: the model's name, in the current folder."""
    int8: bool = False
    data_dir: Path | None = None
    """Where the model's dataset is."""
    force: bool = False
    """Replace a file that vggnet did not write."""
    inputs: tuple[Path, ...] = ()
    """Files that the command has read, which are never replaced."""


@dataclass(frozen=True)
class Exported:
    """What was written, and how it was checked."""

    path: Path
    facts: dict[str, Any]
    """Plain values for JSON."""
    usage: str
    """Python code that runs the file."""


def convert(loaded: LoadedModel, source: Path | None, target: Target, threads: int) -> Exported:
    """Export a model, and compare the file with it.

    Args:
        loaded: The model, on the CPU.
        source: The file or folder that it is from.
        target: What to write.
        threads: For the comparison.

    Raises:
        ConfigError: The kind or the path does not fit, or a package is missing.
        ExportError: The results differ; no file is left.
        OutputError: The file cannot be written; an existing file is unchanged.
    """
    kind, int8 = target.kind, target.int8
    if kind not in TARGETS:
        raise ConfigError(f"unknown format {kind!r}; {suggest(kind, TARGETS)}")
    if int8 and kind not in ("onnx", "c"):
        raise ConfigError(f"--int8 works with --format onnx or c, not with {kind}")
    source = source or Path("model.pth")
    stem = source.resolve().name if source.is_dir() else source.stem
    file = TARGETS[kind].kind
    path = target.output or Path(f"{stem}{'_int8' * int8}{file.suffixes[0] if file else '_hub'}")
    check_target(kind, path, source, target.inputs, target.force)
    with computing("fp32", threads):
        dataset = find_dataset(loaded.card, target.data_dir)
        shown = LoadedModel(loaded.network, loaded.card.without_paths())
        network = EndToEndModel(shown, dataset.name if dataset else None)
        if dataset and kind == "hub":
            network.measure(dataset.test)
        facts = _write(network, target, path, dataset, threads)
    size = sum(one.stat().st_size for one in (path.rglob("*") if path.is_dir() else [path]))
    facts |= {"path": str(path), "format": kind, "bytes": size}
    return Exported(path, facts, TARGETS[kind].usage(path, loaded.card.image_shape))


def _write(
    network: EndToEndModel, target: Target, path: Path, dataset: Dataset | None, threads: int
) -> dict[str, Any]:
    """Export, and return what was measured."""
    pixels, source = choose_pixels(dataset, network.card.image_shape)
    facts: dict[str, Any] = {"images": len(pixels), "source": source}
    if target.kind == "html":
        drawn = choose_reading(network.card.trained_on) is Reading.DRAWN
        return facts | asdict(export_page(network, path, dataset, drawn))
    if target.kind == "c":
        return facts | asdict(export_c(network, path, 8 if target.int8 else 32, pixels, source))
    if target.int8:
        return facts | asdict(export_int8(network, path, dataset, (pixels, source), threads))
    return facts | {"worst": export_model(network, target.kind, path, pixels, source, threads)}
