"""FedLap (Swaroop, Khan, Doshi-Velez, ICLR 2025, arXiv:2501.17325): PVI with isotropic Gaussians and the delta method.

With the prior N(0, 1/δ), precision-mean λ = δ θ, and losses ℓ_k = N_k f_k/τ:

    client   θ_k ← argmin ℓ_k(θ) − ⟨η_k, θ⟩ + δ/2 ‖θ − θ_g‖²            (local steps from θ_g)
    dual     η_k ← η_k + γ δ (θ_g − θ_k)                               (∇ℓ_k(θ_k) at γ = 1 and an exact client)
    server   δ θ_g ← −Σ_k η_k

The dual and server lines are the isotropic family's kernels at ρ = α = 1. The paper's v_k is −η_k. The fixed point is
the posterior mode, argmin Σ_k ℓ_k + δ/2 ‖θ‖². The client's objective is divided by N_k/τ.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from badmm.checks import positive_number
from badmm.clients.federation import Federation, Task
from badmm.clients.training import Penalty
from badmm.rounds.lines import Lines
from badmm.rounds.network_method import Events, PointMethod, State, Tensors, rows


@dataclass(frozen=True)
class FedLap(PointMethod):
    """Prior precision δ (1/θ²), damping γ in (0, 1] and temperature τ."""

    name = "fedlap"
    precision: float = 1.0
    damping: float = 0.1
    temperature: float = 1.0

    def __post_init__(self) -> None:
        positive_number(self.precision, "precision")
        positive_number(self.damping, "damping", 1.0)
        positive_number(self.temperature, "temperature")

    def start(self, federation: Federation, initial: Tensor) -> State:
        """θ_g = 0, the prior's mean, duals 0; the first round's clients start at the network's initialisation."""
        Lines("isotropic_gaussian", initial.device)  # RuntimeError before any training where the device has no kernels
        duals = initial.new_zeros(federation.num_clients, len(initial))
        return State({"mean": torch.zeros_like(initial), "initial": initial.clone()}, {"dual": duals})

    def penalty(self, state: State, task: Task) -> Penalty:
        """(δ/2 ‖θ − θ_g‖² − ⟨η_k, θ⟩) τ/N_k."""
        scale = self.temperature / task.sizes
        linear = scale * (self.precision * state.server["mean"] + rows(state.clients, "dual", task))
        return Penalty(scale * self.precision, linear)

    def conclude(self, state: State, task: Task, theta: Tensor) -> tuple[Tensors, Tensors]:
        """λ_k = δ θ_k goes into c_k, η_k is kept."""
        lines = Lines("isotropic_gaussian", theta.device)
        natural = lines.call("natural_from_standard", theta, precision=self.precision)
        here = lines.call("natural_from_standard", state.server["mean"], precision=self.precision)
        (dual,) = lines.call("dual_update", (rows(state.clients, "dual", task),), here, natural, 1.0, self.damping)
        return {"natural": natural[0]}, {"dual": dual}

    def reduce(self, state: State, federation: Federation, members: Tensor, sent: Tensors) -> Tensors:
        """Σ_k c_k."""
        lines = Lines("isotropic_gaussian", members.device)
        (total,) = lines.contribution((sent["natural"],), (state.clients["dual"],), members, 1.0)
        return {"natural": total}

    def server(self, state: State, federation: Federation, taken: int, sums: Tensors) -> Events:
        """λ_g ← λ_0 + Σ_k c_k with λ_0 = 0."""
        lines = Lines("isotropic_gaussian", sums["natural"].device)
        prior = (torch.zeros_like(state.server["mean"]),)
        natural = lines.server(prior, (sums["natural"],), 1.0)
        (state.server["mean"],) = lines.call("standard_from_natural", *natural, precision=self.precision)
        return {}
