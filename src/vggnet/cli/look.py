"""`vggnet look`: a page with the filters, feature maps and receptive fields of a network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vggnet.cli import model_options as options
from vggnet.cli.options import DataDir, option_groups
from vggnet.cli.terminal import say, warn
from vggnet.errors import ConfigError, DataError, ImageError

if TYPE_CHECKING:
    from vggnet.data.dataset import LabeledImages
    from vggnet.inference.look import Pixels
    from vggnet.inference.predict import Classifier

_CHANNELS = 8
"""Channels of each stage whose maximally activating images are shown."""

_IMAGES = 6
"""Images for each of them."""

_SEARCHED_PIXELS = 4e6
"""Pixels of test images that are searched: 2 s for vgg-mini, 20 s for vgg-d at 224 (2 cores)."""


@option_groups
def look(
    model: options.ModelFile,
    image: Annotated[
        Path | None, typer.Argument(help="Image file; default: the first test image.")
    ] = None,
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="Page.")] = Path("look.html"),
    dataset: Annotated[
        str | None,
        typer.Option(
            help="Dataset or folder in which to find the maximally activating images; default: "
            "the one the model was trained on, if it is on this machine."
        ),
    ] = None,
    data_dir: DataDir = None,
    given: options.ModelOptions,
    force: options.Force = False,
    device: options.Device = "auto",
    threads: options.Threads = None,
) -> None:
    """Show a network's filters, feature maps, receptive fields and maximally activating images."""
    from vggnet.artifacts.atomic import write_file
    from vggnet.artifacts.outputs import HTML, check_output
    from vggnet.engine.device import computing
    from vggnet.inference.look import look as run
    from vggnet.inference.predict import Classifier
    from vggnet.report.look import render_look

    inputs = [*given.inputs(model), *([image] if image else [])]
    inputs += [Path(dataset)] if dataset else []
    check_output(output, HTML, inputs, force)
    classifier = Classifier(given.load(model), device, kernels="torch")
    test = _find_test(classifier, dataset, data_dir)
    if image is None and test is None:
        raise ConfigError(f"the images that {model} was trained on are not here: name an IMAGE")
    shown = _read_image(classifier, image) if image else test.images[0]  # type: ignore[union-attr]
    others = None
    if test:
        count = max(1, int(_SEARCHED_PIXELS / shown[0].size))
        others = test.images[:: -(-len(test) // count)]
    else:
        warn("without the model's dataset there are no maximally activating images (--dataset)")
    with computing("fp32", threads):
        view = run(classifier, shown, others, _CHANNELS, _IMAGES)
    name = Path(dataset or classifier.trained_on.dataset or "").name
    source = f"{len(others):,} test images of {name}" if others is not None else ""
    page = render_look(view, others, f"vggnet look {model.name}", source)
    write_file(output, page.encode())
    say(str(output))


def _find_test(
    classifier: Classifier, dataset: str | None, data_dir: Path | None
) -> LabeledImages | None:
    """Return the test images of a dataset that fits the model, if there is one here.

    Raises:
        ConfigError, DataError: The user named it, and it cannot be used.
    """
    from vggnet.artifacts.export.evidence import find_dataset
    from vggnet.data.matching import load_to_evaluate

    if dataset is None:
        found = find_dataset(classifier.card, data_dir)
        return found.test if found else None
    test, warnings = load_to_evaluate(dataset, classifier.trained_on, data_dir, download=False)
    warn(*warnings)
    return test


def _read_image(classifier: Classifier, path: Path) -> Pixels:
    """Return what the network sees of an image file.

    Raises:
        DataError: It has no image, or more than one.
        ImageError: It cannot be read, or nothing is drawn in it.
    """
    from vggnet.inference.read import choose_bit_depth, choose_reading, find_inputs, predict_items

    inputs = find_inputs([path])
    if len(inputs.items) != 1:
        raise DataError(f"{path} holds {len(inputs.items):,} images; name one")
    depth = choose_bit_depth(inputs, classifier.trained_on)
    reading = choose_reading(classifier.trained_on)
    (found,) = predict_items(classifier, inputs.items, reading, 1, depth)
    if found.problem:
        raise ImageError(f"cannot read {path}: {found.problem}")
    if not found.predictions:
        raise ImageError(f"nothing is drawn in {path}")
    return found.predictions[0].seen
