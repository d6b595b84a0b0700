"""An accelerated network is the network: same function, same parameters, same names."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vggnet.errors import ConfigError, KernelError
from vggnet.kernels import accelerate, keep_memory, status
from vggnet.kernels.network import FusedConvolution, fuse

from .conftest import Network


def train(module: nn.Module, steps: int, size: int = 12) -> list[Tensor]:
    """Take a few steps of SGD on fixed images; return the losses."""
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
    """Ten steps give the losses of the plain network, whichever of pool and ReLU comes first."""
    torch.manual_seed(0)
    plain = Network(size, norm=norm, relu_first=relu_first)
    accelerated = accelerate(copy.deepcopy(plain), mode="winograd")
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
    accelerated = accelerate(network, mode="winograd").eval()
    images = torch.randn(5, 1, 28, 28)
    with torch.inference_mode():
        torch.testing.assert_close(accelerated(images), network(images), rtol=1e-4, atol=1e-5)


def test_parameters_and_names_are_the_networks() -> None:
    """State dict, parameters and buffers have the network's names and are its very tensors."""
    network = Network(norm=True)
    accelerated = accelerate(network, mode="winograd")
    assert list(accelerated.state_dict()) == list(network.state_dict())
    for ours, theirs in zip(accelerated.parameters(), network.parameters(), strict=True):
        assert ours is theirs
    for ours, theirs in zip(accelerated.buffers(), network.buffers(), strict=True):
        assert ours is theirs
    accelerated.load_state_dict(Network(norm=True).state_dict())


def test_train_and_eval_reach_the_network() -> None:
    """The mode set on one is the mode of both."""
    network = Network(norm=True)
    accelerated = accelerate(network, mode="winograd")
    accelerated.eval()
    assert not any(module.training for module in network.modules())
    accelerated.train()
    assert all(module.training for module in network.modules())


def test_copies_are_independent() -> None:
    """A deep copy and a pickled copy compute the same with parameters of their own."""
    accelerated = accelerate(Network(), mode="winograd")
    images = torch.randn(2, 1, 12, 12)
    expected = accelerated(images)
    for other in (copy.deepcopy(accelerated), pickle.loads(pickle.dumps(accelerated))):
        assert torch.equal(other(images), expected)
        with torch.no_grad():
            other.features[0].weight.zero_()
        assert not torch.equal(other(images), expected)
    assert torch.equal(accelerated(images), expected)


def test_odd_layers_are_torchs() -> None:
    """1×1 convolutions, odd channels and response norm run by torch among the kernels."""
    torch.manual_seed(0)
    network = Network(size=12, width=16)
    network.features = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.LocalResponseNorm(5), nn.MaxPool2d(2),
        nn.Conv2d(16, 20, 3, padding=1), nn.ReLU(), nn.Conv2d(20, 24, 1), nn.ReLU(),
        nn.Conv2d(24, 32, 3, padding=1), nn.MaxPool2d(2), nn.ReLU(),
    )  # fmt: skip
    accelerated = accelerate(network, mode="winograd")
    assert [isinstance(step, FusedConvolution) for step in accelerated.steps].count(True) == 2
    images = torch.randn(3, 1, 12, 12)
    torch.testing.assert_close(accelerated(images), network(images), rtol=1e-4, atol=1e-5)


def test_tiny_images_are_torchs() -> None:
    """Where a tile would save no multiplication, a layer gives torch's own bits."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(32, 32, 3, padding=1), nn.ReLU()]
    (step,) = fuse(layers)
    assert isinstance(step, FusedConvolution)
    for size, saves in ((2, False), (3, True)):
        images = torch.randn(3, 32, size, size)
        assert torch.equal(step(images), nn.Sequential(*layers)(images)) is not saves


def test_a_first_stage_of_one_convolution() -> None:
    """VGG A's first stage, one convolution of 3 channels and its pool, is computed right."""
    torch.manual_seed(0)
    network = Network(size=12)
    network.features = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.MaxPool2d(2), nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1), nn.MaxPool2d(2), nn.ReLU(),
    )  # fmt: skip
    images = torch.randn(3, 3, 12, 12)
    found = accelerate(network, mode="winograd")(images)
    torch.testing.assert_close(found, network(images), rtol=1e-4, atol=1e-5)


def test_what_the_kernels_cannot_compute() -> None:
    """In float64 "winograd" refuses and "auto" gives the network back."""
    network = Network().double()
    with pytest.raises(KernelError, match="no layer of this network fits"):
        accelerate(network, mode="winograd")
    assert accelerate(network) is network


def test_a_network_moved_later_still_computes() -> None:
    """Turned to float64 or run under autocast after the fact, it computes by torch."""
    accelerated = accelerate(Network(), mode="winograd")
    images = torch.randn(2, 1, 12, 12)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert accelerated(images).dtype == torch.bfloat16
    assert accelerated.double()(images.double()).dtype == torch.float64


def test_modes() -> None:
    """Mode "torch" is the network itself; an unknown mode is refused with the known ones."""
    network = Network()
    assert accelerate(network, mode="torch") is network
    with pytest.raises(ConfigError, match="auto, winograd, torch"):
        accelerate(network, mode="fast")


def test_status_says_what_is_in_use() -> None:
    """The status names the compiler and the file, or says that torch was asked for."""
    found = status()
    assert found.in_use == "winograd"
    assert found.compiler
    assert found.cache_path is not None
    assert found.cache_path.exists()
    assert found.seconds_to_compile >= 0
    assert status("torch").in_use == "torch"


@pytest.mark.parametrize("size", [12, 13])
def test_torch_compile_traces_it(size: int) -> None:
    """torch.compile takes the accelerated network as one graph and gets the same gradients."""
    accelerated = accelerate(Network(size), mode="winograd")
    images = torch.randn(2, 1, size, size)
    expected = accelerated(images)
    expected.sum().backward()
    gradients = [parameter.grad.clone() for parameter in accelerated.parameters()]
    accelerated.zero_grad()
    found = torch.compile(accelerated, backend="aot_eager", fullgraph=True)(images)
    found.sum().backward()
    torch.testing.assert_close(found, expected)
    for parameter, gradient in zip(accelerated.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


def test_export_takes_the_network() -> None:
    """torch.export of `.network` sees plain convolutions."""
    accelerated = accelerate(Network(), mode="winograd").eval()
    program = torch.export.export(accelerated.network, (torch.randn(2, 1, 12, 12),))
    targets = {str(node.target) for node in program.graph.nodes}
    assert "aten.conv2d.default" in targets
    assert not any("vggnet" in target for target in targets)


def test_keep_memory_is_taken_by_glibc() -> None:
    """Under glibc mallopt accepts both thresholds; elsewhere it is left alone."""
    import platform

    assert keep_memory() == (platform.libc_ver()[0] == "glibc")


@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16])
def test_torchs_default_type_is_not_the_kernels(kind: torch.dtype) -> None:
    """Whatever type torch makes tensors of by default, float32 stays float32, forward and back."""
    torch.manual_seed(0)
    network = Network(norm=True)
    accelerated = accelerate(copy.deepcopy(network), mode="winograd")
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
def test_images_of_other_channels_are_refused(channels: int) -> None:
    """As torch refuses them, and in its words."""
    network = Network()
    images = torch.randn(2, channels, 12, 12)
    with pytest.raises(RuntimeError, match="channels"):
        network(images)
    with pytest.raises(RuntimeError, match="channels"):
        accelerate(network, mode="winograd")(images)


@pytest.mark.parametrize("norm", [False, True])
def test_saved_tensors_may_come_back_in_another_layout(norm: bool) -> None:
    """Hooks that keep values and not strides, as those that save to a disk, change no gradient."""
    torch.manual_seed(0)
    accelerated = accelerate(Network(norm=norm), mode="winograd")
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


def test_a_convolution_of_another_class_is_left_alone() -> None:
    """What a subclass computes is not known."""

    class Doubled(nn.Conv2d):
        def forward(self, images: Tensor) -> Tensor:
            return 2 * super().forward(images)

    layer = Doubled(8, 8, 3, padding=1)
    assert list(fuse([layer])) == [layer]
