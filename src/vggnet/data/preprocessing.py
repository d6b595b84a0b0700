"""Stored uint8 pixels ► the network's input, the same for training, prediction and export."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional as F

from vggnet.config import Config


@dataclass(frozen=True)
class Preprocessing:
    """Padding and normalization, as torchvision's ToTensor and Normalize do it, bit for bit."""

    mean: tuple[float, ...]
    """Subtracted from pixels in [0, 1]: one value, or one per channel."""
    std: tuple[float, ...]
    """Divides the difference: one value, or one per channel."""
    size: int
    """Height and width of the network's input; smaller images are padded with zeros."""

    @classmethod
    def from_config(cls, config: Config) -> Self:
        """Return what a configuration that is complete (`fit_to_data`) asks for."""
        return cls(config.data.mean, config.data.std, config.model.image_size)

    def on(self, device: torch.device) -> Callable[[Tensor], Tensor]:
        """Return the function that preprocesses pixels on `device`.

        Call this once, not per batch: copying mean and std to a GPU waits for the GPU.

        Returns:
            Takes values 0 to 255 of shape (N, C, H, W), uint8 or float32, and may overwrite
            float32 input. Returns float32 of shape (N, C, size, size).
        """
        mean, std = (
            torch.tensor(values, device=device).view(1, -1, 1, 1)
            for values in (self.mean, self.std)
        )

        def preprocess(pixels: Tensor) -> Tensor:
            height, width = pixels.shape[-2:]
            if (height, width) != (self.size, self.size):
                top, left = (self.size - height) // 2, (self.size - width) // 2
                bottom, right = self.size - height - top, self.size - width - left
                pixels = F.pad(pixels, (left, right, top, bottom))
            return pixels.float().div_(255).sub_(mean).div_(std)

        return preprocess
