"""Bregman ADMM (Wang & Banerjee, NeurIPS 2014) with diagonal Gaussians: the duals ascend in expectation parameters.

    client   q_k ← argmin E_q[ℓ_k]/τ − ⟨η_k, μ⟩ + ρ KL(q‖q_g)
    dual     η_k ← η_k + γ ρ (μ_g − μ_k)
    server   λ_g ← (1 − α) mean_k λ_k + α (λ_0 − Σ_k η_k),   α = 1/(1 + ρK)

The fixed point is that of Bayesian ADMM. γ has the units of the inverse Fisher information (λ over μ).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from badmm.checks import positive_integer, positive_number
from badmm.clients.federation import Federation
from badmm.families.distributions import Gaussian
from badmm.families.registry import bind
from badmm.methods.networks.gaussian import FAMILY
from badmm.methods.networks.variational import VariationalMethod
from badmm.rounds.lines import Lines, Slots
from badmm.rounds.network_method import State


@dataclass(frozen=True)
class BregmanADMM(VariationalMethod):
    """Prior precision δ, penalty ρ, γ ("auto": 1/bound, bound ≥ λ_max(F(λ_g)): no longer a step than in λ), τ."""

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

    def steps(self, state: State, federation: Federation) -> tuple[float, float, float]:
        """ρ, α = 1/(1 + ρK), γ."""
        alpha = 1.0 / (1.0 + self.rho * federation.num_clients)
        if self.damping != "auto":
            return self.rho, alpha, self.damping
        mean = self.mean(state).double().cpu().numpy()
        family = bind(FAMILY, Gaussian(mean, state.server["precision"].double().cpu().numpy()))
        return self.rho, alpha, 1.0 / family.fisher_bound(family.prior_natural)

    def dual(self, lines: Lines, duals: Slots, server: Slots, clients: Slots, rho: float, damping: float) -> Slots:
        """In expectation parameters, which the kernel gives."""
        goal = lines.call("expectation_from_natural", *server)
        here = lines.call("expectation_from_natural", *clients)
        return tuple(eta + damping * rho * (g - k) for eta, g, k in zip(duals, goal, here, strict=True))
