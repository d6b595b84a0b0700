"""An accelerated network has the same function, parameters and names."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vggnet.errors import ConfigError, KernelError
from vggnet.kernels import accelerate, keep_memory, kernels_of, status
from vggnet.kernels.loading import find_processor
from vggnet.kernels.network import FusedConvolution, fuse

from .small import Network


def train(module: nn.Module, steps: int, size: int = 12) -> list[Tensor]:
    """Run a few steps of SGD on fixed images; return the losses."""
    generator = torch.Generator().manual_seed(3)
    images = torch.randn(8, 1, size, size, generator=generator)
    labels = torch.randint(0, 10, (8,), generator=generator)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05, momentum=0.9)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = F.cross_entropy(module(images), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return losses


@pytest.mark.parametrize("size", [12, 13])
@pytest.mark.parametrize("relu_first", [False, True])
@pytest.mark.parametrize("norm", [False, True])
def test_training_is_the_same(norm: bool, relu_first: bool, size: int) -> None:
    """Ten steps give the same losses, with pool or ReLU first."""
    torch.manual_seed(0)
    plain = Network(size, norm=norm, relu_first=relu_first)
    accelerated = accelerate(copy.deepcopy(plain), "winograd")
    expected, found = train(plain, 10, size), train(accelerated, 10, size)
    torch.testing.assert_close(found, expected, rtol=2e-3, atol=2e-3)
    for name, buffer in plain.named_buffers():
        torch.testing.assert_close(accelerated.get_buffer(name), buffer, rtol=5e-3, atol=5e-3)


@pytest.mark.parametrize("norm", [False, True])
def test_evaluation_is_the_same(norm: bool) -> None:
    """In eval mode, without gradients, the logits agree to single precision."""
    torch.manual_seed(0)
    network = Network(28, norm=norm)
    train(network, 3, 28)
    accelerated = accelerate(network, "winograd").eval()
    images = torch.randn(5, 1, 28, 28)
    with torch.inference_mode():
        torch.testing.assert_close(accelerated(images), network(images), rtol=1e-4, atol=1e-5)


def test_parameters_and_names_are_shared() -> None:
    """State dict, parameters and buffers are the network's tensors under the same names."""
    network = Network(norm=True)
    accelerated = accelerate(network, "winograd")
    assert list(accelerated.state_dict()) == list(network.state_dict())
    for ours, theirs in zip(accelerated.parameters(), network.parameters(), strict=True):
        assert ours is theirs
    for ours, theirs in zip(accelerated.buffers(), network.buffers(), strict=True):
        assert ours is theirs
    accelerated.load_state_dict(Network(norm=True).state_dict())


def test_train_and_eval_reach_the_network() -> None:
    """Setting the mode of the accelerated network sets that of the network."""
    network = Network(norm=True)
    accelerated = accelerate(network, "winograd")
    accelerated.eval()
    assert not any(module.training for module in network.modules())
    accelerated.train()
    assert all(module.training for module in network.modules())


def test_copies_are_independent() -> None:
    """A deep copy and a pickled copy compute the same with separate parameters."""
    accelerated = accelerate(Network(), "winograd")
    images = torch.randn(2, 1, 12, 12)
    expected = accelerated(images)
    for other in (copy.deepcopy(accelerated), pickle.loads(pickle.dumps(accelerated))):
        assert torch.equal(other(images), expected)
        with torch.no_grad():
            other.features[0].weight.zero_()
        assert not torch.equal(other(images), expected)
    assert torch.equal(accelerated(images), expected)


def test_torch_computes_other_layers() -> None:
    """Torch computes 1×1 convolutions, odd channels and response norm between the kernels."""
    torch.manual_seed(0)
    network = Network(size=12, width=16)
    network.features = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.LocalResponseNorm(5), nn.MaxPool2d(2),
        nn.Conv2d(16, 20, 3, padding=1), nn.ReLU(), nn.Conv2d(20, 24, 1), nn.ReLU(),
        nn.Conv2d(24, 32, 3, padding=1), nn.MaxPool2d(2), nn.ReLU(),
    )  # fmt: skip
    accelerated = accelerate(network, "winograd")
    assert [isinstance(step, FusedConvolution) for step in accelerated.steps].count(True) == 2
    images = torch.randn(3, 1, 12, 12)
    torch.testing.assert_close(accelerated(images), network(images), rtol=1e-4, atol=1e-5)


def test_torch_computes_tiny_images() -> None:
    """If a tile saves no multiplications, a layer returns torch's bits."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(32, 32, 3, padding=1), nn.ReLU()]
    (step,) = fuse(layers)
    assert isinstance(step, FusedConvolution)
    for size, saves in ((2, False), (3, True)):
        images = torch.randn(3, 32, size, size)
        assert torch.equal(step(images), nn.Sequential(*layers)(images)) is not saves


def test_a_first_stage_of_one_convolution() -> None:
    """VGG A's first stage, one convolution of 3 channels and a pool, works."""
    torch.manual_seed(0)
    network = Network(size=12)
    network.features = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.MaxPool2d(2), nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1), nn.MaxPool2d(2), nn.ReLU(),
    )  # fmt: skip
    images = torch.randn(3, 3, 12, 12)
    found = accelerate(network, "winograd")(images)
    torch.testing.assert_close(found, network(images), rtol=1e-4, atol=1e-5)


def test_networks_without_a_kernel() -> None:
    """In float64, "winograd" raises an error and "auto" returns the network."""
    network = Network().double()
    with pytest.raises(KernelError, match="no layer of this network has a compiled kernel"):
        accelerate(network, "winograd")
    assert accelerate(network) is network


def test_a_network_moved_later_still_computes() -> None:
    """Torch computes it after conversion to float64 or under autocast."""
    accelerated = accelerate(Network(), "winograd")
    images = torch.randn(2, 1, 12, 12)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert accelerated(images).dtype == torch.bfloat16
    assert accelerated.double()(images.double()).dtype == torch.float64


def test_modes() -> None:
    """Mode "torch" returns the network; an unknown mode raises an error with the valid ones."""
    network = Network()
    assert accelerate(network, "torch") is network
    assert kernels_of(network) == "torch"
    assert kernels_of(nn.Sequential(accelerate(network))) == "winograd"
    with pytest.raises(ConfigError, match="auto, winograd, torch"):
        accelerate(network, "fast")


def test_status_says_what_is_in_use() -> None:
    """The status names the compiler and the file, or says that torch was selected."""
    found = status()
    assert found.in_use == "winograd"
    assert found.compiler
    assert found.cache_path is not None
    assert found.cache_path.exists()
    assert found.seconds_to_compile >= 0
    assert status("torch").in_use == "torch"


def test_the_original_network_is_kept() -> None:
    """`network` is the original, with plain convolutions, for export and torch.compile."""
    network = Network()
    assert accelerate(network, "winograd").network is network


def test_the_processor_is_read_once() -> None:
    """The processor's flags are parsed once, not for each convolution."""
    assert find_processor() is find_processor()


def test_arm_uses_neon(monkeypatch: pytest.MonkeyPatch) -> None:
    """On Linux for aarch64 the vectors are NEON's; other processors have no kernels."""
    for machine, widths in (("aarch64", (4,)), ("riscv64", None)):
        monkeypatch.setattr("platform.machine", lambda machine=machine: machine)
        if widths:
            assert find_processor.__wrapped__().widths == widths
        else:
            with pytest.raises(KernelError, match=f"Linux on {machine}"):
                find_processor.__wrapped__()


def test_keep_memory_needs_glibc() -> None:
    """Only glibc has the thresholds, and it accepts both."""
    import platform

    assert keep_memory() == (platform.libc_ver()[0] == "glibc")


@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16])
def test_torchs_default_type_does_not_matter(kind: torch.dtype) -> None:
    """Whatever torch's default type is, float32 stays float32, forward and backward."""
    torch.manual_seed(0)
    network = Network(norm=True)
    accelerated = accelerate(copy.deepcopy(network), "winograd")
    images = torch.randn(4, 1, 12, 12)
    expected = network(images)
    expected.sum().backward()
    torch.set_default_dtype(kind)
    try:
        found = accelerated(images)
        found.sum().backward()
    finally:
        torch.set_default_dtype(torch.float32)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    for ours, theirs in zip(accelerated.parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("channels", [2, 3, 5, 8])
def test_images_with_other_channels_raise_an_error(channels: int) -> None:
    """The error is torch's own."""
    network = Network()
    images = torch.randn(2, channels, 12, 12)
    with pytest.raises(RuntimeError, match="channels"):
        network(images)
    with pytest.raises(RuntimeError, match="channels"):
        accelerate(network, "winograd")(images)


@pytest.mark.parametrize("norm", [False, True])
def test_saved_tensors_may_come_back_in_another_layout(norm: bool) -> None:
    """Hooks that keep values but not strides, such as saving to disk, change no gradient."""
    torch.manual_seed(0)
    accelerated = accelerate(Network(norm=norm), "winograd")
    images = torch.randn(4, 1, 12, 12)

    def gradients() -> list[Tensor]:
        return list(torch.autograd.grad(accelerated(images).sum(), list(accelerated.parameters())))

    expected = gradients()
    plain = torch.contiguous_format
    with torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: tensor.clone(memory_format=plain), lambda tensor: tensor
    ):
        found = gradients()
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.equal(ours, theirs)


def test_torch_computes_subclasses_of_convolutions() -> None:
    """A subclass of Conv2d may compute anything, so no kernel replaces it."""

    class Doubled(nn.Conv2d):
        def forward(self, images: Tensor) -> Tensor:
            return 2 * super().forward(images)

    layer = Doubled(8, 8, 3, padding=1)
    assert list(fuse([layer])) == [layer]
