"""Bregman ADMM (Wang & Banerjee, NeurIPS 2014): the penalty is ρ KL, the duals ascend in expectation parameters.

The Lagrangian Σ_k [L_k(μ_k) − ⟨η_k, μ_k − μ_g⟩] + KL(q_g‖p_0) has the gradient μ_g − μ_k in η_k, so that

    dual   η_k ← η_k + γρ (μ_g − μ_k)

with the client and server lines of Bayesian ADMM and the same fixed point, η_k = ∇L_k(μ_g), λ_g = λ_0 − Σ_k η_k. But η
lives with λ, not with μ: γ carries the units of the Fisher information's inverse, and one number has to suit all slots.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from badmm.families.family import Natural
from badmm.methods.base import Method
from badmm.rounds.policy import Policy, Setting, Steps, setting


class BregmanPolicy(Policy):
    """ρ = 1 and α = 1/(1 + ρK) where "auto"; γ may exceed 1, since it has units."""

    def __init__(self, num_clients: int, rho: Setting, alpha: Setting, damping: Setting) -> None:
        super().__init__(num_clients, rho, alpha, "auto")
        self.damping = setting(damping, "damping")

    def automatic_rho(self, required: float) -> float:
        """1, or what the existence condition needs with a margin if that is more."""
        return max(1.0, super().automatic_rho(required))

    def steps(self, required_rho: Callable[[], float]) -> Steps:
        """The next round's step sizes; an automatic γ still lacks its units."""
        base = super().steps(required_rho)
        return base._replace(alpha=1.0 / (1.0 + base.rho * self.num_clients) if self.alpha is None else self.alpha)


class BregmanADMM(Method):
    """η_k ← η_k + γρ(μ_g − μ_k). An automatic γ is 1/bound, bound ≥ λ_max(F(λ_g)): no longer a step than in λ."""

    name = "bregman_admm"

    def make_policy(self, rho: Setting, alpha: Setting, damping: Setting) -> Policy:
        """Any ρ > 0 and γ > 0, α in (0, 1]."""
        return BregmanPolicy(self.num_clients, rho, alpha, damping)

    def steps(self, natural_global: Natural, required_rho: Callable[[], float]) -> Steps:
        """The policy's ρ and α, and γ from the bound where it is automatic."""
        steps = self.policy.steps(required_rho)
        if self.policy.damping is not None:
            return steps
        return steps._replace(damping=1.0 / self.family.fisher_bound(natural_global))

    def dual(self, duals: Natural, natural_global: Natural, clients: Natural, steps: Steps) -> Natural:
        """The derived line in μ."""
        goal, here = self.family.expectation(natural_global), self.family.expectation(clients)
        new = self.family.ns.bregman_dual_update(duals, goal, here, steps.rho, steps.damping)
        return tuple(np.asarray(slot) for slot in new)
