"""The quadratic term in which the objectives of point methods differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Penalty:
    """½ θᵀ diag(curvature) θ − ⟨linear, θ⟩, added to a client's mean loss; both broadcast to (k, P).

    Every point method's client differs from FedAvg's by such a term, up to a constant.
    """

    curvature: Tensor | float
    linear: Tensor

    def add_gradient(self, theta: Tensor, gradient: Tensor) -> None:
        """gradient += curvature · θ − linear, for the first rows."""
        active = len(theta)
        curvature = self.curvature
        if not isinstance(curvature, float):
            gradient.addcmul_(curvature[:active], theta)
        elif curvature:
            gradient.add_(theta, alpha=curvature)
        gradient.sub_(self.linear[:active])
