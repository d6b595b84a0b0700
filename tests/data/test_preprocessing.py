"""The one way from stored pixels to the network's input."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vggnet.data.preprocessing import Preprocessing

CPU = torch.device("cpu")


def test_pixels_are_scaled_as_torchvision_scales_them() -> None:
    """All 256 values come out as ToTensor and Normalize((0.5,), (0.5,)) give them, bit for bit."""
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    expected = (pixels.to(torch.float32).div(255) - 0.5) / 0.5
    assert torch.equal(Preprocessing((0.5,), (0.5,), 16).on(CPU)(pixels), expected)


def test_color_images_match_torchvision_itself() -> None:
    """The same, where torchvision is installed, with one mean and std per channel."""
    transforms = pytest.importorskip("torchvision.transforms")
    image = np.random.default_rng(0).integers(0, 256, (5, 5, 3), np.uint8)
    mean, std = (0.1, 0.5, 0.9), (0.2, 0.3, 0.4)
    chain = transforms.Compose([transforms.ToTensor(), transforms.Normalize(mean, std)])
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None]
    assert torch.equal(Preprocessing(mean, std, 5).on(CPU)(pixels)[0], chain(image))


def test_smaller_images_are_padded_with_zero_pixels() -> None:
    """A 28-pixel image is centred in 32 pixels, on pixels of value zero."""
    pixels = torch.full((1, 1, 28, 28), 255, dtype=torch.uint8)
    padded = Preprocessing((0.5,), (0.5,), 32).on(CPU)(pixels)
    assert torch.equal(padded[..., 2:30, 2:30], torch.ones(1, 1, 28, 28))
    assert padded.sum() == 28 * 28 - (32 * 32 - 28 * 28)
