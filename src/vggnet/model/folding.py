"""Fold batch norm into the convolution before it: the same function with fewer layers."""

from __future__ import annotations

import torch
from torch import nn

from vggnet.model.vgg import VGG


@torch.no_grad()
def fold_batch_norm(network: VGG) -> VGG:
    """Return a network without batch norm that gives the same logits in evaluation.

    There, batch norm is y = γ·(x - mean)/sqrt(var + ε) + β per channel, a scale and a shift
    that the convolution's weights and bias can include. This is computed in float64 on the
    CPU, because some GPUs lack float64; outputs differ only by rounding. A network without
    batch norm is returned unchanged.
    """
    if not network.config.batch_norm:
        return network
    config = network.config.model_copy(update={"batch_norm": False})
    device = next(network.parameters()).device
    folded = VGG(config)
    sources = list(network.features)
    targets = [module for module in folded.features if isinstance(module, nn.Conv2d)]
    for index, source in enumerate(sources):
        if isinstance(source, nn.Conv2d):
            norm = sources[index + 1]
            assert isinstance(norm, nn.BatchNorm2d)
            _fold(source, norm, targets.pop(0))
    folded.classifier.load_state_dict(network.classifier.state_dict())
    return folded.to(device).train(network.training)


def _fold(source: nn.Conv2d, norm: nn.BatchNorm2d, target: nn.Conv2d) -> None:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert source.bias is not None
    assert target.bias is not None
    weight, bias, gamma, beta, mean, variance = (
        tensor.cpu().double()
        for tensor in (source.weight, source.bias, norm.weight, norm.bias,
                       norm.running_mean, norm.running_var)
    )  # fmt: skip
    scale = gamma / (variance + norm.eps).sqrt()
    target.weight.copy_(weight * scale.view(-1, 1, 1, 1))
    target.bias.copy_((bias - mean) * scale + beta)
