"""Where in an image the evidence for a prediction lies.

Small networks are asked directly (occlusion, arXiv 1311.2901): hide each part of the image in
turn, and see how much of the evidence goes. For large ones that takes minutes, so Grad-CAM
(arXiv 1610.02391) reads it from the gradients of each stage. `benchmarks/explanations.py`
measures how faithful both are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from vggnet.inference.predict import Classifier

Pixels = npt.NDArray[np.uint8]
Heat = npt.NDArray[np.float32]

LARGEST_SIDE = 64
"""Pixels. Larger images get Grad-CAM."""

_POSITIONS = 28
"""Places of the patch in each direction, at most."""

_PATCH = 5
"""Height and width of the patch in pixels, for images of up to 28 pixels; larger in larger ones."""


@dataclass(frozen=True)
class Explanation:
    """Evidence in one image for one class."""

    index: int
    """Of the class that it is evidence for."""
    method: str
    """"occlusion" or "Grad-CAM"."""
    heat: Heat
    """Evidence at each pixel, (H, W): positive for the class, negative against it. Occlusion:
    the loss of log odds when it is hidden. Grad-CAM: 0 to 1, the mean of the stages."""
    stages: tuple[Heat, ...] = ()
    """Grad-CAM only: the map of each stage, 0 to 1, each (H, W), the finest first."""


def explain(classifier: Classifier, image: Pixels, index: int | None = None) -> Explanation:
    """Return the evidence for a class in an image.

    Args:
        classifier: The model.
        image: uint8, (C, H, W), as the network takes it.
        index: The class; default: the predicted one.
    """
    if index is None:
        index = int(classifier.predict(image[np.newaxis]).indices[0])
    if max(image.shape[1:]) <= LARGEST_SIDE:
        return Explanation(index, "occlusion", occlude(classifier, image, index))
    stages = grad_cam(classifier, image, index)
    return Explanation(index, "Grad-CAM", np.mean(stages, axis=0), stages)


def occlude(classifier: Classifier, image: Pixels, index: int, patch: int = _PATCH) -> Heat:
    """Hide a patch at each place, in one batch, and return the loss of the class's log odds.

    A pixel's value is the mean over all patches that hide it. The patch has the color of the
    image's edge, which is what MNIST's digits and fitted photographs stand on.

    Args:
        classifier: The model.
        image: uint8, (C, H, W).
        index: The class.
        patch: Height and width of the patch in pixels, for images of up to 28 pixels.
    """
    _, height, width = image.shape
    step = -(-max(height, width) // _POSITIONS)
    reach = step * patch // 2
    tops, lefts = np.arange(0, height, step), np.arange(0, width, step)
    rows, columns = (
        np.abs(np.arange(side) - places[:, np.newaxis]) <= reach
        for side, places in ((height, tops), (width, lefts))
    )
    hidden = (rows[:, np.newaxis, :, np.newaxis] & columns[:, np.newaxis]).reshape(
        -1, height, width
    )
    copies = np.where(hidden[:, np.newaxis], edge_color(image), image)
    odds = log_odds(classifier, np.concatenate([image[np.newaxis], copies]), index)
    lost = (odds[0] - odds[1:])[:, np.newaxis, np.newaxis]
    heat: Heat = ((hidden * lost).sum(axis=0) / hidden.sum(axis=0)).astype(np.float32)
    return heat


def edge_color(image: Pixels) -> Pixels:
    """Return the median of the pixels at the edge of an image (C, H, W), (C, 1, 1)."""
    edge = [image[:, 0], image[:, -1], image[:, :, 0], image[:, :, -1]]
    color: Pixels = np.median(np.concatenate(edge, axis=1), axis=1).astype(np.uint8)
    return color[:, np.newaxis, np.newaxis]


def log_odds(classifier: Classifier, images: Pixels, index: int) -> npt.NDArray[np.float64]:
    """Return the log odds of a class against all others in images (N, C, H, W), (N,)."""
    logits = classifier.logits(images).double()
    others = torch.cat([logits[:, :index], logits[:, index + 1 :]], dim=1)
    found: npt.NDArray[np.float64] = (logits[:, index] - others.logsumexp(1)).numpy()
    return found


def grad_cam(classifier: Classifier, image: Pixels, index: int) -> tuple[Heat, ...]:
    """Return Grad-CAM's map of each stage, from its last convolution, enlarged to the image.

    Args:
        classifier: The model.
        image: uint8, (C, H, W).
        index: The class.

    Returns:
        (H, W) each, scaled to 0 to 1; all 0 where nothing speaks for the class.
    """
    network, (height, width) = classifier.network, image.shape[1:]
    inputs = classifier.preprocess(torch.tensor(image[np.newaxis], device=classifier.device))
    with torch.enable_grad():
        maps = []
        values = inputs.requires_grad_()
        for layer in network.features:
            if isinstance(layer, nn.MaxPool2d):
                maps.append(values)
            # A copy: an in-place ReLU would change what the gradients are taken of.
            values = layer(values.clone() if isinstance(layer, nn.ReLU) else values)
        logits = network.classifier(values.flatten(1))
        gradients = torch.autograd.grad(logits[0, index], maps)
    size = network.config.image_size
    top, left = (size - height) // 2, (size - width) // 2
    found = []
    for activations, gradient in zip(maps, gradients, strict=True):
        heat = _combine(activations.detach(), gradient)
        whole = F.interpolate(heat, (size, size), mode="bilinear", align_corners=False)[0, 0]
        found.append(whole[top : top + height, left : left + width].cpu().numpy())
    return tuple(found)


def _combine(activations: Tensor, gradient: Tensor) -> Tensor:
    """Weight each channel by its mean gradient, and add them up, (1, 1, S, S)."""
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    heat = (weights * activations.relu()).sum(dim=1, keepdim=True).relu()
    return heat / heat.max().clamp(min=torch.finfo(heat.dtype).tiny)
