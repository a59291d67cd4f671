"""FedADMM (Gong, Li, Freris, ICDE 2022, arXiv:2204.03529, algorithm 1).

    client   θ_k ← local steps on w_k f_k(θ) + ⟨y_k, θ⟩ + ρ/2 ‖θ − θ_g‖² from its last θ_k
             y_k ← y_k + ρ (θ_k − θ_g)
             sends the change of θ_k + y_k/ρ
    server   θ_g ← θ_g + η · mean of the changes

The paper's f_k all weigh the same; here w_k = K N_k/N, so that the fixed point minimises the mean loss over all points.
The objective is divided by w_k, which leaves its minimiser and makes one step size suit clients of all sizes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from badmm.checks import positive_number
from badmm.clients.penalty import Penalty
from badmm.rounds.network_method import Events, PointMethod, State, Tensors, rows

if TYPE_CHECKING:
    from torch import Tensor

    from badmm.clients.federation import Federation, Task


@dataclass(frozen=True)
class FedADMM(PointMethod):
    """ADMM with the penalty ρ (loss over θ²) and the server's step η; `warm_start` False begins at θ_g instead."""

    name = "fedadmm"
    rho: float = 0.01
    server_step: float = 1.0
    warm_start: bool = True

    def __post_init__(self) -> None:
        positive_number(self.rho, "rho")
        positive_number(self.server_step, "server_step")

    def start(self, federation: Federation, initial: Tensor) -> State:
        """All clients at the initialisation, y_k = 0."""
        local = initial.repeat(federation.num_clients, 1)
        return State({"mean": initial.clone()}, {"theta": local, "dual": local.new_zeros(local.shape)})

    def penalty(self, state: State, task: Task) -> Penalty:
        """(⟨y_k, θ⟩ + ρ/2 ‖θ − θ_g‖²)/w_k."""
        linear = (self.rho * state.server["mean"] - rows(state.clients, "dual", task)) / task.weights
        return Penalty(self.rho / task.weights, linear)

    def begin(self, state: State, task: Task) -> Tensor:
        """The clients' last θ_k, or θ_g."""
        return rows(state.clients, "theta", task) if self.warm_start else super().begin(state, task)

    def conclude(self, state: State, task: Task, theta: Tensor) -> tuple[Tensors, Tensors]:
        """Sends the change of the augmented model, keeps θ_k and y_k."""
        before, old = rows(state.clients, "theta", task), rows(state.clients, "dual", task)
        dual = old + self.rho * (theta - state.server["mean"])
        return {"change": theta - before + (dual - old) / self.rho}, {"theta": theta, "dual": dual}

    def server(self, state: State, federation: Federation, taken: int, sums: Tensors) -> Events:
        """One step along the mean change."""
        mean = state.server["mean"]
        state.server["mean"] = mean + self.server_step * (sums["change"] / taken).to(mean.dtype)
        return {}
