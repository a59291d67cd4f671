"""Bregman ADMM (Wang & Banerjee, NeurIPS 2014): the penalty is ρ KL, the duals ascend in expectation parameters.

The Lagrangian Σ_k [L_k(μ_k) − ⟨η_k, μ_k − μ_g⟩] + KL(q_g‖p_0) has the gradient μ_g − μ_k in η_k, so that

    client   q_k ← argmin E_q[ℓ_k]/τ − ⟨η_k, μ⟩ + ρ KL(q‖q_g)
    dual     η_k ← η_k + γ ρ (μ_g − μ_k)
    server   λ_g ← (1 − α) mean_k λ_k + α (λ_0 − Σ_k η_k),   α = 1/(1 + ρK)

The fixed point is that of Bayesian ADMM. But η lives with λ, not with μ: γ carries the units of the Fisher
information's inverse, and one number has to suit all slots.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from badmm.checks import positive_integer, positive_number
from badmm.methods.admm import ExactMethod
from badmm.methods.gaussian import VariationalMethod
from badmm.rounds.lines import Slots
from badmm.rounds.policy import Policy, Setting, Steps, setting
from badmm_kernels.scalars import server_step


class BregmanPolicy(Policy):
    """ρ = 1 and α = 1/(1 + ρK) where "auto"; γ may exceed 1, since it has units.

    An automatic γ is 1/bound, bound ≥ λ_max(F(λ_g)): no longer a step than in λ.
    """

    def __init__(self, num_clients: int, rho: Setting, alpha: Setting, damping: Setting) -> None:
        super().__init__(num_clients, rho, alpha, "auto")
        self.damping = setting(damping, "damping")

    def automatic_rho(self, required: float) -> float:
        """1, or what the existence condition needs with a margin if that is more."""
        return max(1.0, super().automatic_rho(required))

    def steps(self, required_rho: Callable[[], float], fisher_bound: Callable[[], float] | None = None) -> Steps:
        """The next round's step sizes."""
        steps = super().steps(required_rho)
        if self.alpha is None:
            steps = steps._replace(alpha=server_step(steps.rho, self.num_clients))
        if self.damping is None and fisher_bound is not None:
            steps = steps._replace(damping=1.0 / fisher_bound())
        return steps


@dataclass(frozen=True)
class BregmanADMM(ExactMethod, VariationalMethod):
    """For networks: prior precision δ, penalty ρ, γ (or "auto"), temperature τ, samples a step."""

    name = "bregman_admm"
    precision: float = 1.0
    rho: float = 1.0
    damping: float | Literal["auto"] = "auto"
    temperature: float = 1.0
    initial_sd: float = 0.05
    samples: int = 1

    def __post_init__(self) -> None:
        for name in ("precision", "rho", "temperature", "initial_sd"):
            positive_number(getattr(self, name), name)
        if self.damping != "auto":
            positive_number(self.damping, "damping")
        positive_integer(self.samples, "samples")

    def settings(self) -> tuple[Setting, Setting, Setting]:
        """ρ, α = 1/(1 + ρK), γ."""
        return self.rho, "auto", self.damping

    @classmethod
    def policy(
        cls, num_clients: int, rho: Setting, alpha: Setting, damping: Setting, mixed_damping: float = 0.0
    ) -> Policy:
        """Any ρ > 0 and γ > 0, α in (0, 1]."""
        return BregmanPolicy(num_clients, rho, alpha, damping)

    @staticmethod
    def dual(ns: Any, duals: Slots, server: Slots, clients: Slots, rho: float, damping: float, **fixed: Any) -> Slots:
        """η_k ← η_k + γρ (μ_g − μ_k)."""
        goal, here = (ns.expectation_from_natural(*natural, **fixed) for natural in (server, clients))
        return tuple(ns.bregman_dual_update(duals, goal, here, rho, damping))
