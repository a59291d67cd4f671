"""Losses of one data point as functions of the network's output, and square roots of their Hessians in the output."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import hessian, vmap
from torch.nn import functional as F

Value = Callable[[Tensor, Tensor], Tensor]
"""Of outputs (N, ...) and targets (N, ...) the losses (N,), or (N, ...), whose mean over the further axes is a point's
loss, as with the losses of `torch.nn` under `reduction="none"`."""


@dataclass(frozen=True)
class Loss:
    """`points(outputs, targets)` is (N,), in nats; `root(outputs, targets)` is L (N, C, C') with ∇²ℓ = LLᵀ.

    Outputs (N, ...) have C numbers per point. `square_root` is for outputs (N, C); without it the Hessian is factored
    numerically, and what is negative in it, where the loss is not convex in the outputs, is left out.
    """

    value: Value
    square_root: Callable[[Tensor], Tensor] | None = None

    def points(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Losses (N,) of the points. ValueError where `value` gives other shapes."""
        found = self.value(outputs, targets)
        if found.ndim < 1 or len(found) != len(outputs):
            expected = f'({len(outputs)},), a value for each point (reduction="none")'
            raise ValueError(f"loss: expected the shape {expected}, got {tuple(found.shape)}")
        return found if found.ndim == 1 else found.flatten(1).mean(dim=1)

    def root(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """L (N, C, C') with ∇²ℓ = LLᵀ in the flattened outputs."""
        if self.square_root is not None and outputs.ndim == 2:
            return self.square_root(outputs)
        shape = outputs.shape[1:]

        def own(flat: Tensor, target: Tensor) -> Tensor:
            return self.points(flat.view(1, *shape), target.unsqueeze(0))[0]

        values, vectors = torch.linalg.eigh(vmap(hessian(own))(outputs.detach().flatten(1), targets))
        return vectors * values.clamp(min=0).sqrt().unsqueeze(-2)


def _cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    if outputs.ndim > 2:
        return F.cross_entropy(outputs, targets, reduction="none")
    # classes before points: torch's softmax vectorizes over what follows its axis, and classes are few
    return F.cross_entropy(outputs.T.unsqueeze(0), targets.unsqueeze(0), reduction="none").squeeze(0)


def _cross_entropy_root(outputs: Tensor) -> Tensor:
    # diag(p) − ppᵀ = (diag(√p) − p√pᵀ)(diag(√p) − p√pᵀ)ᵀ since ‖√p‖ = 1
    p = outputs.softmax(dim=-1)
    root = p.sqrt()
    return torch.diag_embed(root) - p.unsqueeze(-1) * root.unsqueeze(-2)


def squared_error(noise_variance: float = 1.0) -> Loss:
    """½ ‖y − f‖² / σ² for outputs and targets with equally many numbers per point."""

    def value(outputs: Tensor, targets: Tensor) -> Tensor:
        if outputs.numel() != targets.numel():
            raise ValueError(f"targets: expected the outputs' shape {tuple(outputs.shape)}, got {tuple(targets.shape)}")
        return 0.5 / noise_variance * (targets.reshape(outputs.shape) - outputs).square().flatten(1).sum(dim=1)

    def root(outputs: Tensor) -> Tensor:
        return torch.diag_embed(torch.full_like(outputs, noise_variance**-0.5))

    return Loss(value, root)


CROSS_ENTROPY = Loss(_cross_entropy, _cross_entropy_root)
"""−log softmax(f)_y for integer targets y; classes are the second axis of the outputs, as in torch."""
LOSSES = {"cross_entropy": CROSS_ENTROPY, "squared_error": squared_error()}
"""Losses by the names that a configuration knows them by."""
