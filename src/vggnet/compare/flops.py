"""The arithmetic of a training step, and how fast a device can do arithmetic at all."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from vggnet.compare.measure import Timer
from vggnet.config import ModelConfig
from vggnet.model.vgg import VGG, build_network

_SIDE = {"cpu": 2048}
"""Side of the matrices whose product takes long enough to show the peak: 17 GFLOP on a CPU."""
_SIDE_ELSEWHERE = 8192
"""1.1 TFLOP, ten milliseconds on a GPU of 100 TFLOP/s."""
_PRODUCTS = 6


def flops_per_image(config: ModelConfig) -> int:
    """Compute the operations of one image's training step, a multiply-add as two.

    Convolutions and fully connected layers alone, as direct convolution does them; forward,
    the gradients of the weights, and those of the inputs but for the first layer.
    """
    side, total, first = config.image_size, 0, True
    for layer in VGG(config).modules():
        if isinstance(layer, nn.Conv2d):
            forward = 2 * layer.weight.numel() * side * side
        elif isinstance(layer, nn.MaxPool2d):
            side //= 2
            continue
        elif isinstance(layer, nn.Linear):
            forward = 2 * layer.weight.numel()
        else:
            continue
        total += forward * (2 if first else 3)
        first = False
    return total


def count_flops_per_image(config: ModelConfig) -> int:
    """Count the same by torch's own counter, on one image that is trained on."""
    network = build_network(config, 0)
    images = torch.zeros(1, config.in_channels, config.image_size, config.image_size)
    with FlopCounterMode(display=False) as counter:
        network(images).sum().backward()
    return int(counter.get_total_flops())


def measure_peak(device: torch.device, precision: str, timer: Timer) -> float:
    """Return the FLOP/s of a large matrix product, the best of a few after one to warm up.

    Call it under `computing`, which sets threads and TF32.
    """
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32)
    side = _SIDE.get(device.type, _SIDE_ELSEWHERE)
    left, right = (torch.rand(side, side, device=device).to(dtype) for _ in range(2))
    product = torch.empty(side, side, device=device, dtype=dtype)
    seconds = [
        timer.time(device, lambda: torch.mm(left, right, out=product)) for _ in range(_PRODUCTS)
    ]
    return float(2 * side**3 / min(seconds[1:]))
