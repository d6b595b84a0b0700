"""What the kernels' tests share: one compiled library, networks, and when to skip."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from vggnet.errors import KernelError

# Before anything asks for the cache: the tests compile for themselves and leave nothing behind.
_folder = tempfile.TemporaryDirectory(prefix="vggnet-test-cache-")
os.environ["VGGNET_CACHE_DIR"] = _folder.name


def pytest_unconfigure() -> None:
    """Remove the tests' cache."""
    _folder.cleanup()


@pytest.fixture(scope="session", autouse=True)
def _kernels() -> None:
    from vggnet.kernels.build import find_compiler
    from vggnet.kernels.machine import widest_vector

    try:
        find_compiler()
        widest_vector()
    except KernelError as error:
        pytest.skip(f"compiled kernels cannot be tested here: {error}")


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """Use one thread where a test does not say how many, and leave the number as it was.

    On a busy machine a team waits for its slowest thread: the tests took twice as long with two.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Network(nn.Module):
    """A small VGG: two stages of two convolutions, as the package's builder makes them."""

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
        return self.classifier(self.features(images).flatten(1))


@pytest.fixture
def network() -> type[Network]:
    """Give the class of small networks."""
    return Network


def relative_error(found: torch.Tensor, exact: torch.Tensor) -> float:
    """Return the L2 norm of the error, relative to the exact values' (0 for no elements)."""
    norm = exact.norm().item()
    error = (found.double() - exact).norm().item()
    return error / norm if norm else error
