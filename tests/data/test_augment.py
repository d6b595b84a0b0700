"""Augmentation: bounded, a pure function of its place, and nothing at all at strength zero."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from conftest import make_batches
from vggnet.config import AugmentConfig
from vggnet.data.augment import draw_maps, warp
from vggnet.data.dataset import LabeledImages

DIGITS = AugmentConfig(rotation=10, shift=2, scale=0.1, shear=10)


def move(pixels: torch.Tensor, **strength: float | bool) -> torch.Tensor:
    """Warp float images by maps that are drawn within limits."""
    maps = draw_maps(AugmentConfig(**strength), 0, 0, len(pixels))  # type: ignore[arg-type]
    return warp(pixels, torch.from_numpy(maps))


def test_no_strength_is_no_change_bit_for_bit(few: LabeledImages) -> None:
    """Batches under limits of zero are those without augmentation; in order they always are."""
    plain, idle = make_batches(few), make_batches(few, augment=AugmentConfig())
    for one, other in zip(plain.shuffled(0, 0), idle.shuffled(0, 0), strict=True):
        assert torch.equal(one.images, other.images)
    moved = make_batches(few, augment=DIGITS)
    assert not torch.equal(next(moved.shuffled(0, 0)).images, next(plain.shuffled(0, 0)).images)
    for one, other in zip(plain.in_order(), moved.in_order(), strict=True):
        assert torch.equal(one.images, other.images)


def test_the_map_that_changes_nothing_keeps_every_pixel(few: LabeledImages) -> None:
    """Sampling each pixel where it stands gives it back, to a hundredth of a grey level."""
    pixels = torch.from_numpy(few.images).float()
    still = torch.eye(2, 3).expand(len(pixels), 2, 3)
    assert (warp(pixels, still) - pixels).abs().max() < 0.01


@given(
    rotation=st.floats(0, 180),
    shift=st.floats(0, 30),
    scale=st.floats(0, 0.9),
    shear=st.floats(0, 60),
    seed=st.integers(0, 2**63 - 1),
)
def test_maps_stay_within_their_limits(
    rotation: float, shift: float, scale: float, shear: float, seed: int
) -> None:
    """Turned back into angle, slant, size and way, every map lies within what was allowed."""
    config = AugmentConfig(rotation=rotation, shift=shift, scale=scale, shear=shear)
    maps = draw_maps(config, seed, 0, 50).astype(np.float64)
    (a, c), (b, d) = maps[:, :, 0].T, maps[:, :, 1].T
    angle = np.rad2deg(np.arctan2(c, a))
    size = 1 / np.hypot(a, c)
    # The columns are a turn of (1, 0) and of (tan(slant), 1), over the size.
    slant = np.rad2deg(np.arctan2(a * b + c * d, a * d - b * c))
    close = 1e-3
    assert np.abs(angle).max() <= rotation + close
    assert np.abs(slant).max() <= shear + close
    assert np.abs(size - 1).max() <= scale + close
    assert np.abs(maps[:, :, 2]).max() <= shift + close


def test_limits_are_used_to_both_sides() -> None:
    """Over many images each kind of motion comes near both of its limits."""
    maps = draw_maps(AugmentConfig(rotation=10, shift=2), 0, 0, 2000)
    angles = np.rad2deg(np.arctan2(maps[:, 1, 0], maps[:, 0, 0]))
    for values, limit in ((angles, 10), (maps[:, 0, 2], 2), (maps[:, 1, 2], 2)):
        assert values.min() < -0.98 * limit
        assert values.max() > 0.98 * limit
        assert abs(values.mean()) < 0.1 * limit


def test_what_comes_in_is_background() -> None:
    """A white image moved by whole pixels leaves zeros behind, and 255 elsewhere."""
    white = torch.full((1, 1, 6, 4), 255.0)
    right_and_up = torch.tensor([[[1.0, 0, -1], [0, 1, 2]]])
    moved = warp(white, right_and_up)[0, 0]
    expected = torch.zeros(6, 4)
    expected[:4, 1:] = 255
    assert torch.allclose(moved, expected, atol=1e-3)


def test_a_quarter_turn_of_a_image_that_is_not_square() -> None:
    """Angles are true whatever the sides: a point right of the middle comes to stand below."""
    image = torch.zeros(1, 1, 5, 9)
    image[0, 0, 2, 6] = 1
    quarter = torch.tensor([[[0.0, 1, 0], [-1, 0, 0]]])
    moved = warp(image, quarter)[0, 0]
    assert moved[4, 4] == pytest.approx(1, abs=1e-5)
    assert moved.sum() == pytest.approx(1, abs=1e-5)


def test_flip_mirrors_about_half() -> None:
    """Each image is either as it was or mirrored left for right; without flip, never."""
    ramp = torch.arange(8.0).expand(400, 1, 8, 8)
    mirrored = (move(ramp, flip=True) - ramp.flip(-1)).abs().amax((1, 2, 3)) < 1e-4
    kept = (move(ramp, flip=True) - ramp).abs().amax((1, 2, 3)) < 1e-4
    assert (mirrored ^ kept).all()
    assert 150 < int(mirrored.sum()) < 250
    slopes = move(ramp, rotation=10, shear=10, scale=0.1).diff(dim=-1)[:, 0, 3:5, 3]
    assert (slopes > 0).all()


def test_a_place_has_one_map_whatever_came_before(few: LabeledImages) -> None:
    """The same (seed, epoch) gives the same images, from any step on; another, others."""
    parts = make_batches(few, augment=DIGITS)

    def images(seed: int, epoch: int, first: int = 0) -> list[torch.Tensor]:
        return [batch.images for batch in parts.shuffled(seed, epoch, first)]

    whole = images(3, 1)
    for one, other in zip(whole, images(3, 1), strict=True):
        assert torch.equal(one, other)
    for one, other in zip(whole[2:], images(3, 1, 2), strict=True):
        assert torch.equal(one, other)
    maps = [draw_maps(DIGITS, *place, 8) for place in ((3, 1), (3, 2), (4, 1), (1, 3), (3, 0))]
    assert len({one.tobytes() for one in maps}) == len(maps)


@pytest.mark.parametrize("world_size", [2, 3])
def test_processes_move_their_images_as_one_would(few: LabeledImages, world_size: int) -> None:
    """The shares of all ranks, put together, are the one process's batches, bit for bit."""
    whole = list(make_batches(few, augment=DIGITS).shuffled(0, 0))
    for rank in range(world_size):
        part = make_batches(few, augment=DIGITS, rank=rank, world_size=world_size)
        for mine, batch in zip(part.shuffled(0, 0), whole, strict=True):
            assert torch.equal(mine.images, batch.images[rank::world_size])


def test_colours_move_together() -> None:
    """All channels of an image go by one map."""
    image = torch.rand(4, 1, 28, 28, generator=torch.Generator().manual_seed(0)).repeat(1, 3, 1, 1)
    moved = move(image, rotation=20, shear=5, shift=3)
    assert torch.equal(moved[:, 0], moved[:, 1])
    assert torch.equal(moved[:, 0], moved[:, 2])
