"""Dense layers of k networks at once, whose gradients are written where they belong.

`torch.func.vmap` makes of k dense layers one batched product; here they are products on torch's oneDNN, a client each,
where torch has it (CPU, float32): on AMD processors twice as quick as the batched product of MKL. Small products, and
all products elsewhere, are the batched one. The backward pass writes the gradients of weights and biases into memory
that the forward pass names, instead of returning fresh arrays that would have to be copied there.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

_LEAST = 1 << 22
"""Multiplications of a product from which on its speed outweighs a call for every client."""


@cache
def _onednn() -> Callable[..., Tensor] | None:
    """oneDNN's x Wᵀ + b, an operator that torch's compiler emits; None in a torch whose operator is not that one."""
    x, weights, bias = torch.ones(2, 3), torch.arange(6.0).view(2, 3), torch.ones(2)
    try:
        found: Callable[..., Tensor] = torch.ops.mkldnn._linear_pointwise
        same = torch.equal(found(x, weights, bias, "none", [], ""), F.linear(x, weights, bias))
    except (AttributeError, RuntimeError, TypeError):
        return None
    return found if same else None


def products(x: Tensor, weights: Tensor, bias: Tensor | None = None, out: Tensor | None = None) -> Tensor:
    """x_k W_kᵀ + b_k for x (k, N, a), weights (k, b, a) and bias (k, b), into `out` (k, N, b) where given.

    Not for autograd, which `Dense` is for.
    """
    (_, n, a), b = x.shape, weights.shape[1]
    suits = x.device.type == "cpu" and x.dtype == torch.float32 and n * a * b >= _LEAST
    linear = _onednn() if suits and torch.backends.mkldnn.enabled else None
    if linear is None:
        result = torch.bmm(x, weights.mT, out=out)
        return result if bias is None else result.add_(bias.unsqueeze(1))
    biases = [None] * len(x) if bias is None else bias.unbind()
    parts = [linear(*own, "none", [], "") for own in zip(x.unbind(), weights.unbind(), biases, strict=True)]
    return torch.stack(parts, out=out)


class Dense(torch.autograd.Function):
    """y_k = x_k W_kᵀ + b_k of k layers: x (k, N, a), weights (k, b, a), bias (k, b) or None.

    The gradients of weights and bias, Σ_n ḡ_n x_nᵀ and Σ_n ḡ_n, are written into `slopes`, views of the same shapes;
    autograd gets None for them. Without `slopes` they are returned.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weights: Tensor, bias: Tensor | None, slopes: tuple[Tensor, Tensor | None] | None
    ) -> Tensor:
        """y."""
        ctx.save_for_backward(x, weights)
        ctx.slopes, ctx.has_bias = slopes, bias is not None
        return products(x, weights, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """ḡ W for x, and the layer's own."""
        (slope,) = gradients
        x, weights = ctx.saved_tensors
        own, own_bias = ctx.slopes or (None, None)
        outer = products(slope.mT, x.mT, out=own)
        total = torch.sum(slope, dim=1, out=own_bias) if ctx.has_bias else None
        back = products(slope, weights.mT) if ctx.needs_input_grad[0] else None
        return (back, None, None, None) if ctx.slopes else (back, outer, total, None)
