"""Partitioned variational inference (Ashman et al., arXiv:2202.12275): Bayesian ADMM at ρ = α = 1."""

from __future__ import annotations

from badmm.methods.bayes_admm import BayesADMM
from badmm.rounds.policy import Policy, Setting


class PVI(BayesADMM):
    """The clients' approximate factors are t_k ∝ exp⟨−η_k, T(θ)⟩; γ < 1 damps their update."""

    name = "pvi"

    def make_policy(self, rho: Setting, alpha: Setting, damping: Setting) -> Policy:
        """ρ and α are 1; raises `ValueError` for another explicit value."""
        for name, value in (("rho", rho), ("alpha", alpha)):
            if value not in ("auto", 1):
                raise ValueError(f'{name}: expected 1 or "auto" for method "pvi", got {value!r}')
        return Policy(self.num_clients, 1.0, 1.0, damping)
