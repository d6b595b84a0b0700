"""Options of every command that reads a model: the file, and what the file does not say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vggnet.data.files import read_text
from vggnet.errors import ConfigError

if TYPE_CHECKING:
    from vggnet.artifacts.model_card import ModelCard
    from vggnet.artifacts.model_file import LoadedModel

ModelFile = Annotated[
    Path,
    typer.Argument(
        help="Model file, weights of a VGG from another project (.pth, .ckpt, .safetensors), "
        "or a folder of Hugging Face's Hub.",
        metavar="MODEL",
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N, mps or xpu.")]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads; default: the usable cores.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Force = Annotated[
    bool, typer.Option("--force", help="Replace an existing file that vggnet did not write.")
]

Reject = Annotated[
    str | None,
    typer.Option(
        metavar="RATE",
        help="Flag images that are unlike the training images. RATE is the false positive rate: "
        "the share of images like the training images that are flagged, too. 0 flags none; "
        "default: 1%, if the model file has the statistics.",
    ),
]


@dataclass(frozen=True)
class ModelOptions:
    """What the user says of a model in place of its file."""

    mean: Annotated[
        str | None,
        typer.Option(
            metavar="M[,M,M]",
            help="Mean of pixels in [0, 1], one value or one per channel; default: the file's, or "
            "0.5. ImageNet weights: 0.485,0.456,0.406.",
        ),
    ] = None
    std: Annotated[
        str | None,
        typer.Option(
            metavar="S[,S,S]",
            help="Standard deviation of pixels in [0, 1]; default: the file's, or 0.5. ImageNet "
            "weights: 0.229,0.224,0.225.",
        ),
    ] = None
    image_size: Annotated[
        int | None,
        typer.Option(min=1, max=1024, help="Height and width of the model's images in pixels."),
    ] = None
    classes: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,C|FILE",
            help="Class names in the order of the outputs, or a text file with one per line.",
        ),
    ] = None

    def load(self, path: Path) -> LoadedModel:
        """Load a model.

        Raises:
            ConfigError: A value is not a number or does not fit the network, or the file of class
                names cannot be read.
            ModelFileError: The file is missing, damaged, or not a VGG.
        """
        from vggnet.artifacts.model_file import Overrides, load_model

        overrides = Overrides(
            mean=_read_numbers("--mean", self.mean),
            std=_read_numbers("--std", self.std),
            image_size=self.image_size,
            classes=_read_classes(self.classes),
        )
        return load_model(path, overrides)

    def inputs(self, model: Path) -> list[Path]:
        """Return the files that loading reads, which no output may replace."""
        if self.classes is None or "," in self.classes:
            return [model]
        return [model, Path(self.classes)]


def read_reject(text: str | None, models: Mapping[Path, ModelCard]) -> float:
    """Return the rate of `--reject`, and warn of models that cannot flag anything.

    Args:
        text: As "1%" or "0.01"; None if the user did not say.
        models: Their descriptions, by file.

    Raises:
        ConfigError: It is not a share, or so small that no image would be flagged.
    """
    from vggnet.cli.terminal import warn
    from vggnet.inference.predictions import DEFAULT_REJECT

    if text is None:
        return DEFAULT_REJECT
    try:
        rate = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        rate = -1
    if not 0 <= rate < 1:
        raise ConfigError(f"--reject {text!r}: write a share below 1, such as 1% or 0.01")
    for path, card in models.items():
        if rate and card.typicality is None:
            warn(
                f"{path} has no statistics of its training images, so none is flagged; "
                "docs/trust.md says which models have them"
            )
        elif rate and card.typicality and rate < (least := 1 / (card.typicality.images + 1)):
            raise ConfigError(
                f"--reject {text}: the lowest rate for {path} is {100 * least:.2g}%, because it "
                f"has statistics of {card.typicality.images:,} images"
            )
    return rate


def _read_numbers(option: str, text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(
            f"{option} {text!r}: write one number or one per channel, such as 0.5 or 0.5,0.4,0.4"
        ) from None


def _read_classes(text: str | None) -> tuple[str, ...] | None:
    if text is None:
        return None
    if "," in text:
        return tuple(text.split(","))
    try:
        return tuple(read_text(text).splitlines())
    except (OSError, ValueError) as error:
        raise ConfigError(f"--classes {text}: cannot be read as a text file ({error})") from None
