"""Networks start from weights for other classes, channels and image sizes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vggnet.config import ModelConfig
from vggnet.errors import ConfigError
from vggnet.model.transfer import transfer_weights
from vggnet.model.vgg import VGG, build_network


def network(seed: int = 0, **changes: object) -> VGG:
    """Return a small network."""
    values = {"stages": ((4,), (8,)), "hidden": (6,), "num_classes": 3, "image_size": 16}
    return build_network(ModelConfig.model_validate({**values, **changes}), seed).eval()


def test_equal_networks_become_equal() -> None:
    """Every weight is taken over, and there is nothing to report."""
    source, target = network(), network(seed=1)
    done = transfer_weights(source, "abc", target, "abc")
    images = torch.randn(2, 1, 16, 16)
    assert torch.equal(source(images), target(images))
    assert set(done.pretrained) == set(dict(target.named_parameters()))
    assert done.notes == ()


@given(
    old=st.permutations("abcde"), new=st.lists(st.sampled_from("abcxyz"), min_size=1, unique=True)
)
def test_classes_with_the_same_name_keep_their_rows(old: list[str], new: list[str]) -> None:
    """Logits of known classes do not change, whatever their order; the last layer can train."""
    source = network(num_classes=5)
    target = network(seed=1, num_classes=len(new))
    initial = target.state_dict()["classifier.3.bias"].clone()
    done = transfer_weights(source, old, target, new)
    images = torch.randn(2, 1, 16, 16)
    theirs, ours = source(images), target(images)
    for at, name in enumerate(new):
        if name in old:
            assert torch.allclose(ours[:, at], theirs[:, old.index(name)], atol=1e-6)
        else:
            assert target.state_dict()["classifier.3.bias"][at] == initial[at]
    assert "classifier.3.weight" not in done.pretrained
    assert "classifier.0.weight" in done.pretrained


@pytest.mark.parametrize("size", [8, 16, 24, 64])
@pytest.mark.parametrize("hidden", [(), (6,)])
def test_another_image_size_keeps_the_response_to_a_constant(
    size: int, hidden: tuple[int, ...]
) -> None:
    """The resampled layer maps a constant feature map of any size to the same values."""
    source = network(hidden=hidden)
    target = network(seed=1, hidden=hidden, image_size=size)
    done = transfer_weights(source, "abc", target, "abc")
    values = torch.rand(8)
    sides = (16 // 4, size // 4)
    small, large = (
        one.classifier[0](values.repeat_interleave(side * side))
        for one, side in zip((source, target), sides, strict=True)
    )
    assert torch.allclose(small, large, atol=1e-5)
    assert bool(done.notes) == (size != 16)


@pytest.mark.parametrize(("old", "new"), [(3, 1), (1, 3)])
def test_gray_images_pass_like_colored_ones(old: int, new: int) -> None:
    """A gray image gives the same logits whether it has one channel or three equal ones."""
    source, target = network(in_channels=old), network(seed=1, in_channels=new)
    done = transfer_weights(source, "abc", target, "abc")
    gray = torch.rand(2, 1, 16, 16)
    theirs, ours = (one(gray.expand(-1, n, -1, -1)) for one, n in ((source, old), (target, new)))
    assert torch.allclose(theirs, ours, atol=1e-5)
    assert done.notes == (f"first layer: {old} to {new} channels",)


def test_other_layers_are_refused() -> None:
    """The message names both networks."""
    for changes in ({"stages": ((4,), (4,))}, {"hidden": (5,)}, {"batch_norm": True}):
        with pytest.raises(ConfigError, match="the initial weights are of custom, and the network"):
            transfer_weights(network(), "abc", network(**changes), "abc")
