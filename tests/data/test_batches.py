"""Batches: every image once an epoch, in an order that is a pure function."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from conftest import make_batches
from vggnet.data.dataset import LabeledImages


def numbered(count: int) -> LabeledImages:
    """Make images whose label is their number."""
    return LabeledImages(np.zeros((count, 1, 4, 4), np.uint8), np.arange(count), count, "made")


@given(
    count=st.integers(1, 300),
    batch_size=st.integers(1, 320),
    world_size=st.integers(1, 5),
    seed=st.integers(0, 2**63 - 1),
    epoch=st.integers(0, 1000),
)
def test_every_image_once(
    count: int, batch_size: int, world_size: int, seed: int, epoch: int
) -> None:
    """Over all processes an epoch gives each image exactly once, whatever the sizes."""
    seen: list[int] = []
    for rank in range(world_size):
        part = make_batches(
            numbered(count), batch_size=batch_size, rank=rank, world_size=world_size
        )
        given_out = list(part.shuffled(seed, epoch))
        assert len(given_out) == len(part)
        assert sum(batch.global_size for batch in given_out) == count
        seen += [label for batch in given_out for label in batch.labels.tolist()]
    assert sorted(seen) == list(range(count))


def test_order_is_a_pure_function_of_seed_and_epoch() -> None:
    """The same (seed, epoch) gives the same order, another one another, and any step on."""

    def order(seed: int, epoch: int, first: int = 0) -> list[list[int]]:
        parts = make_batches(numbered(100), batch_size=32)
        return [batch.labels.tolist() for batch in parts.shuffled(seed, epoch, first)]

    assert order(0, 0) == order(0, 0)
    assert order(0, 0) != order(0, 1)
    assert order(0, 1) != order(1, 0)
    assert order(0, 0, 2) == order(0, 0)[2:]


def test_in_order_keeps_the_order() -> None:
    """Evaluation sees the images as they are stored."""
    parts = make_batches(numbered(10), batch_size=4)
    assert [batch.labels.tolist() for batch in parts.in_order()] == [
        [0, 1, 2, 3],
        [4, 5, 6, 7],
        [8, 9],
    ]


def test_images_that_do_not_fit_the_device_are_read_as_needed(
    few: LabeledImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU with too little memory gets the same batches, one after the other."""
    stored = [*make_batches(few).shuffled(0, 1), *make_batches(few).in_order()]
    monkeypatch.setattr("vggnet.data.batches._fits", lambda *_: False)
    read = [*make_batches(few).shuffled(0, 1), *make_batches(few).in_order()]
    for one, other in zip(stored, read, strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.labels, other.labels)
