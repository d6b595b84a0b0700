"""An image of any size, fitted to the network's; the same for training and for prediction."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image


def fit_image(
    original: npt.NDArray[np.uint8], channels: int, height: int, width: int
) -> npt.NDArray[np.uint8]:
    """Fit an image into (C, H, W): scaled without distortion, centred, on its edges' colour.

    Args:
        original: uint8, (H, W, 3) or (H, W).
        channels: 1 for grey, 3 for colour.
        height: Pixels of the result.
        width: Pixels of the result.
    """
    return fit(Image.fromarray(original), channels, height, width)


def fit(image: Image.Image, channels: int, height: int, width: int) -> npt.NDArray[np.uint8]:
    """Fit a Pillow image; as `fit_image`."""
    mode = "L" if channels == 1 else "RGB"
    image = image if image.mode == mode else image.convert(mode)
    by = min(height / image.height, width / image.width)
    size = max(1, round(image.width * by)), max(1, round(image.height * by))
    pixels = np.asarray(image.resize(size, Image.Resampling.LANCZOS))
    pixels = pixels.reshape(*pixels.shape[:2], channels)
    if size == (width, height):
        return pixels.transpose(2, 0, 1)
    edges = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    fitted = np.empty((height, width, channels), np.uint8)
    fitted[:] = np.median(edges, axis=0)
    top, left = (height - size[1]) // 2, (width - size[0]) // 2
    fitted[top : top + size[1], left : left + size[0]] = pixels
    return fitted.transpose(2, 0, 1)
