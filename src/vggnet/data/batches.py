"""Arrays to batches: shuffle, shard, augment, normalize, all on the device that trains."""

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
    """One process's share of a batch."""

    images: Tensor
    """Normalized float32, (n, C, S, S)."""
    labels: Tensor
    """Class indices, int64, (n,)."""
    global_size: int
    """Images in the batch over all processes."""


class Batches:
    """Images kept as uint8 on the device, given out as normalized batches.

    The order of an epoch is a pure function of (seed, epoch, number of images), and so is
    how an image in it is moved: there is no sampler state to save. The last batch of an
    epoch may be short.

    Args:
        examples: What to give out.
        device: Where they live from now on.
        batch_size: Images in a batch, over all processes.
        preprocessing: How their pixels become the network's input.
        augment: How images are moved at random when they are given out shuffled.
        rank, world_size: This process takes every `world_size`-th image of a batch.
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
        # On a CPU the tensor is the array: MNIST's training images are 47 MB.
        self.pixels = torch.from_numpy(examples.images).to(device)
        self.labels = torch.tensor(examples.labels, dtype=torch.int64, device=device)
        self.batch_size = batch_size
        self._preprocess = preprocessing.on(device)
        self._augment = augment if augment and augment.is_active else None
        self._rank, self._world_size = rank, world_size

    def __len__(self) -> int:
        return -(-len(self.labels) // self.batch_size)

    def size_of(self, step: int) -> int:
        """Return the images in batch `step` of an epoch, over all processes."""
        return min(self.batch_size, len(self.labels) - step * self.batch_size)

    def in_order(self) -> Iterator[Batch]:
        """Give every image once, as they are stored."""
        return self._cut(torch.arange(len(self.labels), device=self.labels.device), 0)

    def shuffled(self, seed: int, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """Give every image once, in the epoch's own order, from batch `first_step` on."""
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
