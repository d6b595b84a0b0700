"""Small networks, and what tests run in new processes."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import nn


class Network(nn.Module):
    """A small VGG: two stages of two convolutions, built as the package does."""

    def __init__(
        self, size: int = 12, *, norm: bool = False, relu_first: bool = False, width: int = 16
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 1
        for stage in (width, 2 * width):
            for position in range(2):
                layers.append(nn.Conv2d(channels, stage, 3, padding=1))
                channels = stage
                if norm:
                    layers.append(nn.BatchNorm2d(stage))
                tail: list[nn.Module] = [nn.ReLU(inplace=True)]
                if position == 1:
                    tail = [*tail, nn.MaxPool2d(2)] if relu_first else [nn.MaxPool2d(2), *tail]
                layers += tail
        self.features = nn.Sequential(*layers)
        side = size // 2 // 2
        self.classifier = nn.Sequential(
            nn.Linear(channels * side * side, 24), nn.ReLU(inplace=True), nn.Linear(24, 10)
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map images (N, 1, S, S) to logits (N, 10)."""
        return self.classify(self.features(images))

    def classify(self, maps: torch.Tensor) -> torch.Tensor:
        """Map feature maps (N, C, s, s) to logits (N, 10)."""
        return self.classifier(maps.flatten(1))


def relative_error(found: torch.Tensor, exact: torch.Tensor) -> float:
    """Return the L2 norm of the error relative to that of the exact values (0 if empty)."""
    norm = exact.norm().item()
    error = (found.double() - exact).norm().item()
    return error / norm if norm else error


def answer(
    sender: Connection, environment: dict[str, str], function: Callable[..., Any],
    arguments: tuple[Any, ...],
) -> None:  # fmt: skip
    """Call a function in this environment and send its result."""
    os.environ.clear()
    os.environ.update(environment)
    torch.set_num_threads(1)
    sender.send(function(*arguments))


def use_kernels(times: int = 1) -> tuple[str, list[str]]:
    """Accelerate networks; return the kernels in use and the messages logged."""
    from vggnet.kernels import accelerate, kernels_of

    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("vggnet").addHandler(handler)
    networks = [accelerate(Network()) for _ in range(times)]
    with torch.no_grad():
        for network in networks:
            network(torch.zeros(1, 1, 12, 12))
    (kernels,) = {kernels_of(network) for network in networks}
    return kernels, messages
