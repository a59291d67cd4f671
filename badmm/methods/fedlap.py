"""FedLap (Swaroop, Khan, Doshi-Velez, ICLR 2025, arXiv:2501.17325): PVI with isotropic Gaussians and the delta method.

With the prior N(0, 1/δ), precision-mean λ = δ θ, and losses ℓ_k = N_k f_k/τ:

    client   θ_k ← argmin ℓ_k(θ) − ⟨η_k, θ⟩ + δ/2 ‖θ − θ_g‖²            (local steps from θ_g)
    dual     η_k ← η_k + γ δ (θ_g − θ_k)                               (∇ℓ_k(θ_k) at γ = 1 and an exact client)
    server   δ θ_g ← −Σ_k η_k

The dual and server lines are Bayesian ADMM's at ρ = α = 1. The paper's v_k is −η_k. The fixed point is
the posterior mode, argmin Σ_k ℓ_k + δ/2 ‖θ‖². The client's objective is divided by N_k/τ.

From duals of 0 the server moves by γK times the mean displacement of all clients: by that displacement, as averaging
does, with γ = 1/K and nobody absent. Per point of an average client the penalty is δ Kτ/N, which is FedProx's ρ.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from badmm.checks import positive_number
from badmm.clients.penalty import Penalty
from badmm.methods.admm import AdmmMethod
from badmm.rounds.lines import Slots
from badmm.rounds.network_method import DescentMethod, State
from badmm.rounds.policy import Policy, Setting, setting

if TYPE_CHECKING:
    from torch import Tensor

    from badmm.clients.federation import Federation, Task
    from badmm.clients.training import LocalSolver


PENALTY = 1e-3
"""δ Kτ/N of the automatic δ: FedProx's ρ."""


class SizedPrior(AdmmMethod):
    """δ "auto" is 1e-3 N/(Kτ), γ "auto" is 1/K."""

    temperature: float

    def __post_init__(self) -> None:
        setting(self.precision, "precision")
        setting(self.damping, "damping", 1.0)
        positive_number(self.temperature, "temperature")

    @classmethod
    def policy(
        cls, num_clients: int, rho: Setting, alpha: Setting, damping: Setting, mixed_damping: float = 0.0
    ) -> Policy:
        """An automatic γ is 1/K."""
        damping = 1.0 / num_clients if damping == "auto" else damping
        return super().policy(num_clients, rho, alpha, damping, mixed_damping)

    def prior_precision(self, federation: Federation, initial: Tensor) -> Tensor:
        """δ of every coordinate, (P,)."""
        delta = self.precision
        if delta == "auto":
            delta = PENALTY * sum(federation.counts) / (federation.num_clients * self.temperature)
        return initial.new_full(initial.shape, delta)


@dataclass(frozen=True)
class FedLap(SizedPrior, DescentMethod):
    """Prior precision δ (1/θ²), damping γ in (0, 1] and temperature τ. δ "auto" is 1e-3 N/(Kτ), γ "auto" is 1/K."""

    name = "fedlap"
    family = "isotropic_gaussian"
    slots = ("precision_mean",)
    broadcast = ("precision_mean", "delta")
    precision: float | Literal["auto"] = "auto"
    damping: float | Literal["auto"] = "auto"
    temperature: float = 1.0

    def member(self, mean: Tensor, precision: Tensor) -> Slots:
        """λ = δ θ; the precision of one coordinate is that of all."""
        return tuple(self._kernels(mean).natural_from_standard(mean, precision=float(precision[0])))

    def mean(self, state: State) -> Tensor:
        """θ_g = λ_g/δ."""
        natural, delta = self.global_natural(state), float(state.server["delta"])
        mean: Tensor = self._kernels(natural[0]).standard_from_natural(*natural, precision=delta)[0]
        return mean

    def start(self, federation: Federation, initial: Tensor) -> State:
        """θ_g = 0, the prior's mean, duals 0; the first round's clients start at the network's initialisation."""
        state = self.first(federation, initial)
        state.server["delta"] = self.prior_precision(federation, initial)[:1]
        return state

    def penalty(self, state: State, task: Task) -> Penalty:
        """(δ/2 ‖θ − θ_g‖² − ⟨η_k, θ⟩) τ/N_k, by the cavity."""
        ess = self.ess(state, task)
        return Penalty(state.server["delta"] / ess, self.cavity(state, task)[0] / ess)

    def natural(self, state: State, task: Task, solver: LocalSolver) -> Slots:
        """λ_k = δ θ_k."""
        theta = solver.variables  # type: ignore[attr-defined]
        return self.member(theta, state.server["delta"])
