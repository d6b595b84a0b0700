"""Which images a run calibrates its probabilities on."""

from __future__ import annotations

import numpy as np

from conftest import make_batches
from vggnet.data.batches import Batches
from vggnet.data.dataset import LabeledImages
from vggnet.engine.schedule import count_steps
from vggnet.recipes import resolve_config
from vggnet.run.calibration import MOST_IMAGES, choose_calibration_images


def number(count: int) -> LabeledImages:
    """Return images of 2×2 pixels that hold their own numbers."""
    images = np.arange(count, dtype=np.uint32).view(np.uint8).reshape(count, 1, 2, 2)
    return LabeledImages(images, np.arange(count) % 2, 2, "numbers")


def numbers(examples: LabeledImages) -> set[int]:
    """Return the numbers in images."""
    return set(examples.images.reshape(-1, 4).copy().view(np.uint32).ravel().tolist())


def test_the_images_of_a_short_run_are_not_trained_on() -> None:
    """`fast` calibrates on images that none of its batches holds, and trains on what it did."""
    config = resolve_config({"recipe": "fast"}, {"train": {"seed": 3}})
    whole = number(20_000)
    train, chosen = choose_calibration_images(config, whole, None)
    assert train is whole
    assert chosen
    batches = make_batches(train, batch_size=config.train.global_batch_size)
    steps = count_steps(config.train.epochs, len(batches))
    seen = set(shuffled(batches, config.train.seed, steps))
    assert len(seen) >= 11_000
    assert len(chosen) == min(MOST_IMAGES, len(whole) - len(seen))
    assert seen.isdisjoint(numbers(chosen))


def shuffled(batches: Batches, seed: int, steps: int) -> list[int]:
    """Return the numbers in the first batches of a run."""
    found = []
    for batch, _ in zip(batches.shuffled(seed, 0), range(steps), strict=False):
        pixels = ((batch.images / 2 + 0.5) * 255).round().to(int).reshape(-1, 4).numpy()
        found += (pixels @ 256 ** np.arange(4)).tolist()
    return found


def test_whole_epochs_hold_some_out() -> None:
    """`fast` keeps 2,000 of 20,000 images; with fewer, or with other recipes, none."""
    fast = resolve_config({"train": {"epochs": 1}})
    best, article = (resolve_config({"recipe": name}) for name in ("best", "article"))
    train, chosen = choose_calibration_images(fast, number(20_000), None)
    assert chosen
    assert (len(train), len(chosen)) == (18_000, 2_000)
    assert numbers(train).isdisjoint(numbers(chosen))
    for config, count in ((fast, 19_999), (best, 20_000), (article, 20_000)):
        train, chosen = choose_calibration_images(config, number(count), None)
        assert (len(train), chosen) == (count, None)


def test_validation_images_come_first() -> None:
    """They are not trained on anyway; of many, some from all over are enough."""
    config = resolve_config({"recipe": "best"})
    train, chosen = choose_calibration_images(config, number(20_000), number(12_000))
    assert chosen
    assert len(train) == 20_000
    assert numbers(chosen) == set(range(0, 12_000, 3))
