"""FedLap-Cov (Swaroop, Khan, Doshi-Velez, ICLR 2025, arXiv:2501.17325): PVI with diagonal Gaussians and Laplace.

With the prior N(0, 1/δ), λ = (S θ, S), duals (η_ξ, η_S), losses ℓ_k = N_k f_k/τ:

    client   θ_k ← argmin ℓ_k(θ) − ⟨η_ξ, θ⟩ + ½ θᵀ diag(η_S) θ + ½ (θ − θ_g)ᵀ diag(S_g) (θ − θ_g)
             S_k = S_g + η_S + diag G_k(θ_k)            G_k: the Gauss–Newton matrix of ℓ_k, exact
    dual     η_k ← η_k + γ (λ_g − λ_k),  λ_k = (S_k θ_k, S_k)
    server   λ_g ← λ_0 − Σ_k η_k

This is λ_k = λ_g + η_k − ∇L_k with the delta method's ∇_{μ1}L = ∇ℓ − Gθ, ∇_{μ2}L = −G (ρ = α = 1 in arXiv:2506.13150).
On quadratics the mean of the fixed point is the posterior's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from badmm.clients.penalty import Penalty
from badmm.methods.fedlap import SizedPrior
from badmm.methods.gaussian import GaussianMethod
from badmm.rounds.lines import Slots
from badmm.rounds.network_method import DescentMethod, State

if TYPE_CHECKING:
    from torch import Tensor

    from badmm.clients.federation import Federation, Task
    from badmm.clients.training import LocalSolver


@dataclass(frozen=True)
class FedLapCov(SizedPrior, GaussianMethod, DescentMethod):
    """Prior precision δ (1/θ²), damping γ in (0, 1] and temperature τ. δ "auto" is 1e-3 N/(Kτ), γ "auto" is 1/K."""

    name = "fedlap_cov"
    precision: float | Literal["auto"] = "auto"
    damping: float | Literal["auto"] = "auto"
    temperature: float = 1.0

    def start(self, federation: Federation, initial: Tensor) -> State:
        """λ_g = λ_0, duals 0; the first round's clients start at the network's initialisation."""
        return self.first(federation, initial)

    def penalty(self, state: State, task: Task) -> Penalty:
        """The quadratic terms, the cavity's, times τ/N_k."""
        ess, (xi, precision) = self.ess(state, task), self.cavity(state, task)
        return Penalty(precision / ess, xi / ess)

    def natural(self, state: State, task: Task, solver: LocalSolver) -> Slots:
        """(S_k θ_k, S_k) with S_k the client line's at ∇_{μ2}L = −G_k/τ."""
        theta = solver.variables  # type: ignore[attr-defined]
        curvature = task.curvature(theta) / self.temperature
        rho = self.steps(state, task.federation).rho
        duals, slope = self._of(state, "dual_", task.index), (curvature * theta, -curvature)
        _, precision = self._kernels(theta).client_map(self.global_natural(state), duals, slope, rho)
        return self.member(theta, precision)
