"""Federated Newton: Bayesian ADMM's round at ρ → ∞, α = 1. Under a full Gaussian it is natural-gradient VB with step 1
(VON, arXiv:2107.04562, section 3); with the delta method, Newton's method on the posterior mode, or IRLS.

    client   λ_k ← λ_g
    dual     η_k ← (1 − γ) η_k + γ ∇L_k(μ_g)         the limit of η_k + γρ (λ_g − λ_k)
    server   λ_g ← λ_0 − Σ_k η_k

A client evaluates its loss once per round and solves nothing. Like IRLS it can overshoot from far away; γ < 1 damps it.
"""

from __future__ import annotations

from collections.abc import Callable

from badmm.methods.admm import ExactMethod
from badmm.rounds.policy import Policy, Setting, Steps, setting


class NewtonPolicy(Policy):
    """ρ = ∞ and α = 1 in every round; γ is 1 where it is "auto"."""

    def __init__(self, num_clients: int, damping: Setting) -> None:
        super().__init__(num_clients, "auto", 1.0, damping)
        self.gamma = setting(damping, "damping", 1.0) or 1.0

    def enough(self, playing: bool) -> float:
        """The existence condition holds at ρ = ∞."""
        return float("inf")

    def steps(self, required_rho: Callable[[], float], fisher_bound: Callable[[], float] | None = None) -> Steps:
        """The same in every round."""
        return Steps(float("inf"), 1.0, self.gamma)


class Newton(ExactMethod):
    """η_k = ∇L_k(μ_g); at γ = 1 and the delta method its iterates are those of IRLS on the pooled data."""

    name = "newton"

    @classmethod
    def policy(
        cls, num_clients: int, rho: Setting, alpha: Setting, damping: Setting, mixed_damping: float = 0.0
    ) -> Policy:
        """ρ is infinite and α is 1; raises `ValueError` for another explicit value."""
        for name, value, only in (("rho", rho, "inf"), ("alpha", alpha, "1")):
            if value not in ("auto", float(only)):
                raise ValueError(f'{name}: expected {only} or "auto" for method "newton", got {value!r}')
        return NewtonPolicy(num_clients, damping)
