"""Losses of one data point as functions of the network's output, and square roots of their Hessians in the output."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Loss:
    """`value(outputs (..., C), targets (...))` is (...), in nats; `root(outputs)` is L (..., C, C') with ∇²ℓ = LLᵀ."""

    value: Callable[[Tensor, Tensor], Tensor]
    root: Callable[[Tensor], Tensor]


def _cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    # classes before points: torch's softmax vectorizes over what follows its axis, and classes are few
    flat = outputs.reshape(1, -1, outputs.shape[-1]).mT
    return F.cross_entropy(flat, targets.reshape(1, -1), reduction="none").view(targets.shape)


def _cross_entropy_root(outputs: Tensor) -> Tensor:
    # diag(p) − ppᵀ = (diag(√p) − p√pᵀ)(diag(√p) − p√pᵀ)ᵀ since ‖√p‖ = 1
    p = outputs.softmax(dim=-1)
    root = p.sqrt()
    return torch.diag_embed(root) - p.unsqueeze(-1) * root.unsqueeze(-2)


def squared_error(noise_variance: float = 1.0) -> Loss:
    """½ (y − f)² / σ² for outputs (..., 1)."""

    def value(outputs: Tensor, targets: Tensor) -> Tensor:
        return 0.5 / noise_variance * (targets - outputs.squeeze(-1)).square()

    def root(outputs: Tensor) -> Tensor:
        return torch.full_like(outputs, noise_variance**-0.5).unsqueeze(-1)

    return Loss(value, root)


CROSS_ENTROPY = Loss(_cross_entropy, _cross_entropy_root)
"""−log softmax(f)_y for integer targets y."""
