"""Muon steps orthogonally for convolutions and wide hidden layers; AdamW trains the rest."""

from __future__ import annotations

from collections.abc import Collection

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from vggnet.config import ModelConfig, TrainConfig
from vggnet.engine.optimizer import build_optimizer, orthogonalize
from vggnet.model.vgg import VGG, build_network

SMALL = ModelConfig(stages=((8,), (16, 136)), hidden=(16, 16), dropout=0.0, batch_norm=True)


def step(config: TrainConfig, *gradients: Tensor, pretrained: Collection[str] = ()) -> VGG:
    """Take a step from the initial weights for each set of gradients, laid end to end."""
    network = build_network(SMALL, 0)
    optimizer = build_optimizer(network, config, pretrained)
    for group in optimizer.param_groups:
        group["lr"] *= group["factor"]  # as `fit` does
    for every in gradients:
        at = 0
        for parameter in network.parameters():
            part = every[at : at + parameter.numel()]
            parameter.grad = part.view_as(parameter).clone()
            at += parameter.numel()
        optimizer.step()
    return network


@pytest.fixture
def gradients() -> list[Tensor]:
    """Three steps' gradients of the small network."""
    torch.manual_seed(0)
    count = sum(parameter.numel() for parameter in VGG(SMALL).parameters())
    return list(torch.randn(3, count))


@given(rows=st.integers(1, 24), columns=st.integers(1, 24), seed=st.integers(0, 99))
def test_singular_values_become_equal_and_vectors_stay(rows: int, columns: int, seed: int) -> None:
    """Values from 0.02 to 1, wide or tall, all come out at about 1, in their own directions."""
    torch.manual_seed(seed)
    size = min(rows, columns)
    left, right = (nn.init.orthogonal_(torch.empty(length, size)) for length in (rows, columns))
    values = torch.linspace(0.02, 1, size)
    found = left.T @ orthogonalize(1000 * left * values @ right.T) @ right
    assert ((found.diagonal() > 0.65) & (found.diagonal() < 1.25)).all()
    assert torch.allclose(found, found.diagonal().diag(), atol=1e-4)


@given(
    rows=st.integers(1, 40), extra=st.integers(0, 100), tall=st.booleans(),
    smallest=st.sampled_from([0.1, 1e-3, 1e-6, 0.0]), seed=st.integers(0, 99),
)  # fmt: skip
def test_the_gram_matrix_gives_the_same_result(
    rows: int, extra: int, tall: bool, smallest: float, seed: int
) -> None:
    """For long matrices the iteration on the Gram matrix equals the plain one in float64."""
    torch.manual_seed(seed)
    columns = 16 * rows + extra  # from a ratio of 16 on
    left = nn.init.orthogonal_(torch.empty(rows, rows))
    right = nn.init.orthogonal_(torch.empty(rows, columns))
    matrix = (left * torch.linspace(smallest, 1, rows)) @ right
    exact = matrix.double() / matrix.double().norm().clamp(min=1e-30)
    for _ in range(5):
        gram = exact @ exact.T
        exact = 3.4445 * exact + (-4.7750 * gram + 2.0315 * gram @ gram) @ exact
    found = orthogonalize(matrix.T).T if tall else orthogonalize(matrix)
    limit = 1e-5 if smallest == 0.1 else 1e-3
    assert (found - exact).norm() <= limit * exact.norm()


def test_no_gradient_is_no_step() -> None:
    """A gradient of zeros, as of a dead layer, gives zeros and not NaN."""
    for columns in (9, 99):
        zeros = torch.zeros(4, columns)
        assert torch.equal(orthogonalize(zeros), zeros)


def suits_muon(name: str, parameter: Tensor) -> bool:
    """Whether Muon trains a parameter of the small network."""
    rest = ("classifier.3.weight", "classifier.6.weight")
    return parameter.ndim > 1 and len(parameter) <= 128 and name not in rest


def test_the_rest_is_adamw(gradients: list[Tensor]) -> None:
    """AdamW trains, bitwise, biases, norms, a wide convolution, square and last linear layers."""
    settings = TrainConfig(optimizer="muon", peak_lr=0.01, weight_decay=0.1)
    ours = step(settings, *gradients)
    theirs = step(settings.model_copy(update={"optimizer": "adamw"}), *gradients)
    for (name, one), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert torch.equal(one, other) != suits_muon(name, one), name


def test_a_network_of_wide_layers_alone_is_trained_by_adamw() -> None:
    """Where no convolution is narrow enough there is nothing for Muon, and no error."""
    network = build_network(ModelConfig(stages=((136,),), hidden=(8,)), 0)
    before = network.features[0].weight.detach().clone()
    optimizer = build_optimizer(network, TrainConfig(optimizer="muon"))
    network(torch.rand(2, 1, 28, 28)).sum().backward()
    optimizer.step()
    assert not torch.equal(network.features[0].weight, before)


def test_a_step_is_as_long_as_its_rate_says(gradients: list[Tensor]) -> None:
    """A weight moves by 0.2 of the rate in the mean square, whatever the gradient's size.

    Orthogonal directions have singular values of 0.7 to 1.2, so the length is as exact.
    """
    settings = TrainConfig(optimizer="muon", peak_lr=0.01)
    before = build_network(SMALL, 0)
    small, large = (step(settings, by * gradients[0]) for by in (1, 1000))
    networks = (small, large, before)
    for (name, one), (_, other), (_, start) in zip(
        *(network.named_parameters() for network in networks), strict=True
    ):
        if suits_muon(name, one):
            moved = (one - start).square().mean().sqrt().item() / 0.01
            assert 0.6 * 0.2 < moved < 1.25 * 0.2
            assert torch.allclose(one, other, atol=1e-6)


def test_weight_decay_pulls_weights_to_zero(gradients: list[Tensor]) -> None:
    """Without a gradient the weights shrink by rate times decay, as AdamW's do."""
    settings = TrainConfig(optimizer="muon", peak_lr=0.01, weight_decay=0.5)
    before, after = build_network(SMALL, 0), step(settings, torch.zeros_like(gradients[0]))
    for start, end in zip(before.parameters(), after.parameters(), strict=True):
        assert torch.allclose(end, start * (1 - 0.01 * 0.5))


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "muon"])
def test_pretrained_layers_have_a_lower_rate(optimizer: str, gradients: list[Tensor]) -> None:
    """Their step is a tenth of the one without the factor; that of other layers is the same."""
    config = TrainConfig(optimizer=optimizer, init_lr=0.1)
    plain = step(config.model_copy(update={"init_lr": 1.0}), gradients[0])
    before = build_network(SMALL, 0)
    slow = [name for name, _ in before.named_parameters() if name.startswith("features.")]
    found = step(config, gradients[0], pretrained=slow)
    for (name, old), full, new in zip(
        before.named_parameters(), plain.parameters(), found.parameters(), strict=True
    ):
        factor = 0.1 if name in slow else 1.0
        assert torch.allclose(new - old, factor * (full - old), atol=1e-6), name
