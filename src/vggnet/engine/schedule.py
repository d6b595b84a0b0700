"""Learning rate and image size as pure functions of how much of the run is done."""

from __future__ import annotations

from vggnet.config import TrainConfig


def count_steps(epochs: float, steps_per_epoch: int) -> int:
    """Return the number of steps in a run, at least 1."""
    return max(1, round(epochs * steps_per_epoch))


def lr_at(done: float, config: TrainConfig) -> float:
    """Return the learning rate when a fraction `done` of the run is done.

    Linear schedule: from 0 to the peak during warm-up, then to 0 at the end. Of a run whose
    number of steps is known, each step takes the value at its middle, so that no step has a
    rate of zero.
    """
    if config.schedule == "constant":
        return config.peak_lr
    if done < config.warmup_fraction:
        return config.peak_lr * done / config.warmup_fraction
    return config.peak_lr * (1 - done) / (1 - config.warmup_fraction)


def side_at(done: float, growth_fraction: float, full: int, multiple: int) -> int:
    """Return the height and width of the training images when `done` of the run is done.

    They grow evenly from half of `full` to `full` over the growth fraction. The side is a
    multiple of `multiple`, the input pixels per pixel of the last feature map: 16, 20, 24 and 28
    for images of 28 pixels and two pools. Where no smaller multiple is at least half of `full`,
    the side is `full` throughout.
    """
    if done >= growth_fraction:
        return full
    least = -(-full // (2 * multiple)) * multiple
    side = least + (full - least) * done / growth_fraction
    return int(side // multiple) * multiple
