"""Partitioned variational inference (Ashman et al., arXiv:2202.12275), synchronous, damped: Bayesian ADMM at ρ = α = 1.

    client   q_k ← argmin E_q[ℓ_k]/τ − ⟨η_k, μ⟩ + KL(q‖q_g)       (the cavity q_g/t_k times p(y_k|θ))
    dual     η_k ← η_k + γ (λ_g − λ_k)                            (t_k ← t_k (q_k/q_g)^γ, t_k ∝ exp⟨−η_k, T(θ)⟩)
    server   λ_g ← λ_0 − Σ_k η_k                                  (q_g ∝ p_0 Π_k t_k)

Networks have diagonal Gaussians, and their clients' problem is solved by sampled gradients. On quadratics the fixed
point then has the posterior's mean and its diagonal of the precision.
"""

from __future__ import annotations

from dataclasses import dataclass

from badmm.checks import positive_integer, positive_number
from badmm.methods.admm import ExactMethod
from badmm.methods.gaussian import VariationalMethod
from badmm.rounds.policy import Policy, Setting


@dataclass(frozen=True)
class PVI(ExactMethod, VariationalMethod):
    """For networks: prior precision δ (1/θ²), damping γ in (0, 1], temperature τ, samples a step."""

    name = "pvi"
    precision: float = 1.0
    damping: float = 0.1
    temperature: float = 1.0
    initial_sd: float = 0.05
    samples: int = 1

    def __post_init__(self) -> None:
        positive_number(self.damping, "damping", 1.0)
        for name in ("precision", "temperature", "initial_sd"):
            positive_number(getattr(self, name), name)
        positive_integer(self.samples, "samples")

    @classmethod
    def policy(
        cls, num_clients: int, rho: Setting, alpha: Setting, damping: Setting, mixed_damping: float = 0.0
    ) -> Policy:
        """ρ and α are 1; raises `ValueError` for another explicit value."""
        for name, value in (("rho", rho), ("alpha", alpha)):
            if value not in ("auto", 1):
                raise ValueError(f'{name}: expected 1 or "auto" for method "pvi", got {value!r}')
        return Policy(num_clients, 1.0, 1.0, damping)
