"""Arrays to batches: shuffle, split over processes, augment, preprocess, all on the device."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vggnet.config import AugmentConfig
from vggnet.data.augment import draw_maps, warp
from vggnet.data.dataset import LabeledImages
from vggnet.data.preprocessing import Preprocessing


@dataclass(frozen=True)
class Batch:
    """The part of a batch that one process gets."""

    images: Tensor
    """Preprocessed, float32, (n, C, S, S)."""
    labels: Tensor
    """int64, (n,)."""
    global_size: int
    """Images in the batch over all processes."""


class Batches:
    """Images stored as uint8 on the device, returned as preprocessed batches.

    The order of an epoch is a pure function of (seed, epoch, number of images), and so is the
    augmentation: there is no sampler state to save. The last batch of an epoch may be smaller.

    Args:
        examples: The images.
        device: Where they are stored from now on.
        preprocessing: How their pixels become the network's input.
        batch_size: Images per batch, over all processes.
        augment: Random changes to images in shuffled batches.
        rank, world_size: This process gets every `world_size`-th image of a batch.
    """

    def __init__(
        self,
        examples: LabeledImages,
        device: torch.device,
        preprocessing: Preprocessing,
        *,
        batch_size: int,
        augment: AugmentConfig | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        # On a CPU the tensor shares the array's memory: 47 MB for MNIST's training images.
        self.pixels = torch.from_numpy(examples.images).to(device)
        self.labels = torch.tensor(examples.labels, dtype=torch.int64, device=device)
        self.batch_size = batch_size
        self._preprocess = preprocessing.on(device)
        self._augment = augment if augment and augment.is_active else None
        self._rank, self._world_size = rank, world_size

    def __len__(self) -> int:
        return -(-len(self.labels) // self.batch_size)

    def size_of(self, step: int) -> int:
        """Return the number of images in batch `step` of an epoch, over all processes."""
        return min(self.batch_size, len(self.labels) - step * self.batch_size)

    def in_order(self) -> Iterator[Batch]:
        """Return every image once, in the stored order."""
        return self._cut(torch.arange(len(self.labels), device=self.labels.device), 0)

    def shuffled(self, seed: int, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """Return every image once, in the order of the epoch, from batch `first_step` on."""
        order = np.random.default_rng([seed, epoch]).permutation(len(self.labels))
        maps = None
        if self._augment:
            drawn = draw_maps(self._augment, seed, epoch, len(self.labels))
            maps = torch.from_numpy(drawn).to(self.labels.device)
        return self._cut(torch.from_numpy(order).to(self.labels.device), first_step, maps)

    def _cut(self, order: Tensor, first_step: int, maps: Tensor | None = None) -> Iterator[Batch]:
        for start in range(first_step * self.batch_size, len(order), self.batch_size):
            places = slice(start, start + self.batch_size)
            chosen = order[places]
            mine = chosen[self._rank :: self._world_size]
            pixels = self.pixels[mine]
            if maps is not None:
                pixels = warp(pixels.float(), maps[places][self._rank :: self._world_size])
            yield Batch(self._preprocess(pixels), self.labels[mine], len(chosen))
