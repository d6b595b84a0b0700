"""The optimizers: Adam, AdamW and Muon."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Collection, Container, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vggnet.config import TrainConfig

_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic that moves all singular values close to 1 in a few iterations."""
_ROUNDS = 5
_GRAM_RATIO = 16
"""Columns per row from which the iteration runs on the Gram matrix. A hidden layer of 128×3136
takes 2.7 ms instead of 8.4 (medians of 151 interleaved calls, one thread, CPU time, Intel Xeon).
Convolutions with no more inputs than outputs have at most 9, and keep their bits."""

_MOST_OUTPUTS = 128
"""Of a layer that Muon trains. The iteration costs 3.3 C / (pixels of the feature map ×
batch size) times as much as training the layer: for VGG D, with 512 channels and maps of 4 and
16 pixels, 1.1 s per step at batch 64 on two cores, more than everything else."""


def eager(rule: type[torch.optim.Optimizer]) -> Callable[..., torch.optim.Optimizer]:
    """Return an optimizer class without torch's decorators for torch.compile.

    The first call of a decorated method imports torch._dynamo: 800 modules, 1.2 to 2 s, 100 to
    177 MiB. We compile nothing, and differentiate through no step.
    """
    names = ("add_param_group", "zero_grad", "step")
    plain = {name: torch.no_grad()(inspect.unwrap(getattr(rule, name))) for name in names}
    return type(rule.__name__, (rule,), plain)


_Adam, _AdamW = eager(torch.optim.Adam), eager(torch.optim.AdamW)


class _Muon(torch.optim.Optimizer):
    """Muon for the weights of convolutions and wide hidden layers of up to 128 outputs, else AdamW.

    A step follows the momentum with all its singular values made equal, so that rare directions
    are learned as fast as common ones (K. Jordan et al., 2024,
    https://kellerjordan.github.io/posts/muon/). It is scaled to the length of AdamW's steps
    (arXiv 2502.16982, section 2.2), so that both use the same learning rate. torch.optim.Muon
    does not support convolutions, and computes in bfloat16, which most CPUs emulate.
    """

    _step_supports_amp_scaling = True  # read by GradScaler

    def __init__(
        self,
        groups: Sequence[dict[str, Any]],
        weights: Container[Tensor],
        betas: tuple[float, float],
        **options: Any,
    ) -> None:
        own, rest = (
            [{**group, "params": [one for one in group["params"] if (one in weights) is chosen]}
             for group in groups]
            for chosen in (True, False)
        )  # fmt: skip
        # Any of the groups may be empty: a network may have only wide layers.
        super().__init__(own, options)
        self._own = len(own)
        self._rest: Any = _AdamW(rest, betas=betas, fused=True, **options)
        # One list of groups and one state, for the learning rate, the scaler and checkpoints.
        self.param_groups += self._rest.param_groups
        self._rest.state = self.state
        self._momentum = betas[0]

    def trains(self, parameter: nn.Parameter) -> bool:
        """Whether Muon, not AdamW, trains a parameter."""
        own = self.param_groups[: self._own]
        return any(one is parameter for group in own for one in group["params"])

    def leave_to_adamw(self, parameter: nn.Parameter) -> None:
        """Let AdamW train a parameter."""
        pairs = zip(self.param_groups[: self._own], self.param_groups[self._own :], strict=True)
        for own, rest in pairs:
            kept = [one for one in own["params"] if one is not parameter]
            if len(kept) < len(own["params"]):
                own["params"] = kept
                rest["params"].append(parameter)

    def step(self) -> None:  # type: ignore[override]
        """Update all parameters.

        A GradScaler sets `grad_scale` and `found_inf`. A step with infinite gradients is undone
        on the device: asking whether there are any would wait for it.
        """
        scale, found_inf = (getattr(self, name, None) for name in ("grad_scale", "found_inf"))
        self._rest.grad_scale, self._rest.found_inf = scale, found_inf
        self._rest.step()
        own = [
            (weight, group)
            for group in self.param_groups[: self._own]
            for weight in group["params"]
        ]
        for weight, _ in own:
            if not self.state[weight]:
                self.state[weight]["momentum"] = torch.zeros_like(weight)
        if found_inf is None:
            self._follow_momentum(own)
            return
        changed = [one for weight, _ in own for one in (weight, self.state[weight]["momentum"])]
        before = [tensor.clone() for tensor in changed]
        for weight, _ in own:
            weight.grad.div_(scale)
        self._follow_momentum(own)
        for tensor, old in zip(changed, before, strict=True):
            tensor.copy_(torch.where(found_inf > 0, old, tensor))

    def _follow_momentum(self, own: Sequence[tuple[nn.Parameter, dict[str, Any]]]) -> None:
        ahead = []
        for weight, _ in own:
            momentum, gradient = self.state[weight]["momentum"], weight.grad
            assert gradient is not None
            momentum.lerp_(gradient, 1 - self._momentum)
            ahead.append(gradient.lerp(momentum, self._momentum).flatten(1))  # Nesterov
        for (weight, group), direction in zip(own, orthogonalize_all(ahead), strict=True):
            length = 0.2 * math.sqrt(max(direction.shape))
            weight.mul_(1 - group["lr"] * group["weight_decay"])
            weight.sub_(direction.view_as(weight), alpha=group["lr"] * length)


def _muon_weights(network: nn.Module) -> set[Tensor]:
    """Return the weights that Muon trains: those of convolutions and of wide hidden layers.

    A narrow hidden layer of 32×128 learns faster with AdamW: scikit-learn's digits, 55 steps,
    8 seeds: 81.2 % instead of 77.8.
    """
    layers = [one for one in network.modules() if isinstance(one, nn.Conv2d | nn.Linear)]
    return {
        one.weight
        for one in layers[:-1]  # the last one's rows are the classes
        if len(one.weight) <= _MOST_OUTPUTS and (isinstance(one, nn.Conv2d) or _is_wide(one.weight))
    }


def orthogonalize_all(matrices: Sequence[Tensor]) -> list[Tensor]:
    """Orthogonalize each matrix; off the CPU, narrow ones together.

    A GPU takes longer to start such small products than to compute them.
    """
    if all(one.device.type == "cpu" for one in matrices):
        return [orthogonalize(one) for one in matrices]
    return orthogonalize_together(matrices)


def orthogonalize_together(matrices: Sequence[Tensor]) -> list[Tensor]:
    """Orthogonalize matrices of any shapes, all but the wide ones as one batch.

    Wide ones, such as those of hidden layers, would pad the others to many times their size.
    """
    narrow = [one for one in matrices if not _is_wide(one)]
    batch = iter(_orthogonalize_batch(narrow) if narrow else ())
    return [orthogonalize(one) if _is_wide(one) else next(batch) for one in matrices]


def _is_wide(matrix: Tensor) -> bool:
    """Whether the iteration runs on the Gram matrix."""
    return max(matrix.shape) >= _GRAM_RATIO * min(matrix.shape)


def _orthogonalize_batch(matrices: Sequence[Tensor]) -> list[Tensor]:
    """Orthogonalize matrices, padded to one shape by zeros, which stay zeros.

    Results differ from those of `orthogonalize` by rounding.
    """
    a, b, c = _NEWTON_SCHULZ
    wide = [one if one.shape[0] <= one.shape[1] else one.T for one in matrices]
    rows, columns = (max(one.shape[side] for one in wide) for side in (0, 1))
    found = torch.stack(
        [F.pad(one, (0, columns - one.shape[1], 0, rows - one.shape[0])) for one in wide]
    )
    found /= found.norm(dim=(1, 2), keepdim=True).clamp(min=torch.finfo(found.dtype).tiny)
    for _ in range(_ROUNDS):
        gram = found @ found.mT
        square = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        found = torch.baddbmm(found, square, found, beta=a)
    return [
        (whole if matrix is one else whole.T)[: matrix.shape[0], : matrix.shape[1]]
        for whole, one, matrix in zip(found, wide, matrices, strict=True)
    ]


def orthogonalize(matrix: Tensor) -> Tensor:
    """Return a matrix with the same singular vectors, and singular values of about 1.

    Five Newton-Schulz iterations; the values end between 0.7 and 1.2, except for those below a
    thousandth of the matrix's norm.
    """
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    a, b, c = _NEWTON_SCHULZ
    found: Tensor = wide / wide.norm().clamp(min=torch.finfo(wide.dtype).tiny)
    if _is_wide(wide):
        found = _iterate_gram(found @ found.T) @ found
    else:
        for _ in range(_ROUNDS):
            gram = found @ found.T
            square = torch.addmm(gram, gram, gram, beta=b, alpha=c)
            found = torch.addmm(found, square, found, beta=a)
    return found if wide is matrix else found.T


def _iterate_gram(gram: Tensor) -> Tensor:
    """Return the matrix whose product with X is what the iteration makes of X; gram is X Xᵀ.

    A round multiplies X by F = a + b G + c G² with G = X Xᵀ, which turns G into F G F. So only G
    and the result need products with the long side of X: 4 m²n multiply-adds instead of 20 m²n.
    The relative error stays below 1e-5 for well-conditioned X and below 1e-3 otherwise, because
    G contains the squares of the singular values.
    """
    a, b, c = _NEWTON_SCHULZ
    product = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    for _ in range(_ROUNDS):
        factor = torch.addmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal().add_(a)
        product = factor @ product
        gram = factor @ gram @ factor
    return product


_EagerMuon = eager(_Muon)


def build_optimizer(
    network: nn.Module, config: TrainConfig, pretrained: Collection[str] = ()
) -> torch.optim.Optimizer:
    """Build the configured optimizer for all parameters of a network that are not frozen.

    Each of its groups has a `factor` for the learning rate: `init_lr` for the parameters named
    in `pretrained`, 1 for the others.
    """
    slow = frozenset(pretrained) if config.init_lr != 1 else frozenset()
    trained = [
        {
            "params": [
                one
                for name, one in network.named_parameters()
                if one.requires_grad and (name in slow) == is_slow
            ],
            "factor": config.init_lr if is_slow else 1.0,
        }
        for is_slow in ((False, True) if slow else (False,))
    ]
    options = {"betas": config.betas, "lr": config.peak_lr, "weight_decay": config.weight_decay}
    match config.optimizer:
        case "adam":
            return _Adam(trained, fused=True, **options)
        case "adamw":
            return _AdamW(trained, fused=True, **options)
        case "muon":
            return _EagerMuon(trained, _muon_weights(network), **options)


def leave_to_adamw(optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> None:
    """Let AdamW train a parameter that Muon would train, for a run that began so.

    Version 0.1 trained hidden layers with AdamW.
    """
    if isinstance(optimizer, _Muon):
        optimizer.leave_to_adamw(parameter)


def averages_of(optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> tuple[str, ...]:
    """Return the names of the averages, of the parameter's shape, that the optimizer keeps."""
    if isinstance(optimizer, _Muon) and optimizer.trains(parameter):
        return ("momentum",)
    return ("exp_avg", "exp_avg_sq")
