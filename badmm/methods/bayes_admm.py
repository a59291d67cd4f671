"""Bayesian ADMM (Möllenhoff et al., arXiv:2506.13150): duals in natural parameters."""

from __future__ import annotations

import numpy as np

from badmm.families.family import Natural
from badmm.methods.base import Method
from badmm.rounds.policy import Policy, Setting, Steps


class BayesADMM(Method):
    """η_k ← η_k + γρ(λ_g − λ_k); classic consensus ADMM under `isotropic_gaussian`."""

    name = "bayes_admm"

    def make_policy(self, rho: Setting, alpha: Setting, damping: Setting) -> Policy:
        """Any ρ > 0, α and γ in (0, 1]."""
        return Policy(self.num_clients, rho, alpha, damping, mixed_damping=self.family.mixed_damping)

    def dual(self, duals: Natural, natural_global: Natural, clients: Natural, steps: Steps) -> Natural:
        """The dual line of the package's kernels."""
        new = self.family.ns.dual_update(duals, natural_global, clients, steps.rho, steps.damping)
        return tuple(np.asarray(slot) for slot in new)
