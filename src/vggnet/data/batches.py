"""Arrays to batches: shuffle, split over processes, augment, preprocess, all on the device."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vggnet.config import AugmentConfig
from vggnet.data.ahead import work_ahead
from vggnet.data.augment import draw_maps, warp
from vggnet.data.dataset import LabeledImages, SelectedImages
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
    """Images stored as uint8, returned as preprocessed batches on the device.

    They are stored on the device, if they fit in half of its free memory. Otherwise, and if
    they are mapped from a file on a CPU, a thread reads the next batches ahead.

    The order of an epoch is a pure function of (seed, epoch, number of images), and so is the
    augmentation: there is no sampler state to save. The last batch of an epoch may be smaller.

    Args:
        examples: The images.
        device: Where the batches are needed.
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
        images = examples.images
        mapped = isinstance(images, (np.memmap, SelectedImages))
        self._resident: Tensor | None = None
        self._streamed: SelectedImages | None = None
        if not _fits(images.nbytes, mapped, device):
            self._streamed = SelectedImages(images, np.arange(len(images)))
        elif mapped:
            self._resident = torch.tensor(images[:], device=device)
        else:
            # On a CPU the tensor shares the array's memory: 47 MB for MNIST's training images.
            self._resident = torch.from_numpy(images).to(device)
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
        return self._cut(torch.arange(len(self.labels)), 0)

    def shuffled(self, seed: int, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """Return every image once, in the order of the epoch, from batch `first_step` on."""
        order = shuffled_order(seed, epoch, len(self.labels))
        maps = None
        if self._augment:
            drawn = draw_maps(self._augment, seed, epoch, len(self.labels))
            maps = torch.from_numpy(drawn).to(self.labels.device)
        return self._cut(torch.from_numpy(order), first_step, maps)

    def _cut(self, order: Tensor, first_step: int, maps: Tensor | None = None) -> Iterator[Batch]:
        on_device = order.to(self.labels.device)
        starts = range(first_step * self.batch_size, len(order), self.batch_size)
        ends = [min(start + self.batch_size, len(order)) for start in starts]
        parts = [
            slice(start + self._rank, end, self._world_size)
            for start, end in zip(starts, ends, strict=True)
        ]
        gathered: Iterator[Tensor]
        if (stored := self._resident) is not None:
            gathered = (stored[on_device[part]] for part in parts)
        else:
            gathered = work_ahead(lambda part: self._read(order[part]), parts)
        for start, end, part, pixels in zip(starts, ends, parts, gathered, strict=True):
            if maps is not None:
                pixels = warp(pixels.float(), maps[part])
            yield Batch(self._preprocess(pixels), self.labels[on_device[part]], end - start)

    def _read(self, rows: Tensor) -> Tensor:
        """Return images that are not stored on the device, on their way to it."""
        assert self._streamed is not None
        pixels = torch.from_numpy(self._streamed[rows.numpy()])
        if self.labels.device.type == "cuda":
            return pixels.pin_memory().to(self.labels.device, non_blocking=True)
        return pixels.to(self.labels.device)


def shuffled_order(seed: int, epoch: int, count: int) -> npt.NDArray[np.int64]:
    """Return the order of an epoch, (count,)."""
    return np.random.default_rng([seed, epoch]).permutation(count)


def _fits(size: int, mapped: bool, device: torch.device) -> bool:
    """Return whether images of `size` bytes are stored on a device, or read as they are needed."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return size <= free // 2
    return device.type != "cpu" or not mapped
