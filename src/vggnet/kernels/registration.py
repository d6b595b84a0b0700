"""Make a function an operation of torch, so that autograd, compile and export know it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def refuse_derivative(name: str) -> None:
    """Make differentiating an operation an error; torch would only warn and be wrong.

    Args:
        name: `namespace::name`.
    """

    def refuse(ctx: Any, *gradients: Any) -> None:
        raise RuntimeError(f"{name} cannot be differentiated: no second derivatives here")

    torch.library.register_autograd(name, refuse)


def operation(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a function as the CPU's kernel of a new operation, and return the operation.

    `torch.library.custom_op` would do the same and more: it keeps torch.compile out of the
    function by a wrapper whose first call imports all of torch._dynamo, 800 modules in 1.5
    to 2 s, which no one who only trains needs. The operation is opaque to the compiler
    without it.

    Args:
        name: `namespace::name`.
    """

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        torch.library.define(name, torch.library.infer_schema(function, mutates_args=()))
        torch.library.impl(name, "cpu", function)
        namespace, _, short = name.partition("::")
        found: Callable[..., Any] = getattr(getattr(torch.ops, namespace), short).default
        return found

    return register
