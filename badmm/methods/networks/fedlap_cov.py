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

from torch import Tensor

from badmm.checks import positive_number
from badmm.clients.federation import Federation, Task
from badmm.clients.training import Penalty
from badmm.methods.networks.gaussian import DUALS, FAMILY, GaussianMethod, server_natural
from badmm.rounds.lines import Lines
from badmm.rounds.network_method import PointMethod, State, Tensors, rows


@dataclass(frozen=True)
class FedLapCov(GaussianMethod, PointMethod):
    """Prior precision δ (1/θ²), damping γ in (0, 1] and temperature τ."""

    name = "fedlap_cov"
    precision: float = 1.0
    damping: float = 0.1
    temperature: float = 1.0

    def __post_init__(self) -> None:
        positive_number(self.precision, "precision")
        positive_number(self.damping, "damping", 1.0)
        positive_number(self.temperature, "temperature")

    def steps(self, state: State, federation: Federation) -> tuple[float, float, float]:
        """ρ = α = 1, γ."""
        return 1.0, 1.0, self.damping

    def start(self, federation: Federation, initial: Tensor) -> State:
        """λ_g = λ_0, duals 0; the first round's clients start at the network's initialisation."""
        return self.first(federation, initial)

    def penalty(self, state: State, task: Task) -> Penalty:
        """The quadratic terms times τ/N_k."""
        scale = self.temperature / task.sizes
        xi, precision = server_natural(state)
        dual_xi, dual_precision = (rows(state.clients, name, task) for name in DUALS)
        return Penalty(scale * (precision + dual_precision), scale * (xi + dual_xi))

    def conclude(self, state: State, task: Task, theta: Tensor) -> tuple[Tensors, Tensors]:
        """Sends λ_k, keeps η_k."""
        precision = state.server["precision"] + rows(state.clients, DUALS[1], task)
        precision = precision + task.curvature(theta) / self.temperature
        natural = Lines(FAMILY, theta.device).call("natural_from_standard", theta, precision)
        return self.exchange(state, task, natural)
