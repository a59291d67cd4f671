"""FedDyn (Acar, Zhao, Matas Navarro, Mattina, Whatmough, Saligrama, ICLR 2021, arXiv:2111.04263, algorithm 1).

    client   θ_k ← local steps on w_k f_k(θ) − ⟨g_k, θ⟩ + ρ/2 ‖θ − θ_g‖² from θ_g         (their α is ρ)
             g_k ← g_k − ρ (θ_k − θ_g)                                                    (∇ w_k f_k(θ_k) if exact)
    server   h ← h − ρ/K Σ_{k∈S} (θ_k − θ_g),   θ_g ← mean_{k∈S} θ_k − h/ρ

w_k = K N_k/N, so that the fixed point minimises the mean loss over all points; dividing the objective by w_k gives the
authors' client-specific ρ/w_k. Local weight decay is part of f_k.
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
class FedDyn(PointMethod):
    """Dynamic regularisation with strength ρ (loss over θ²)."""

    name = "feddyn"
    rho: float = 0.01

    def __post_init__(self) -> None:
        positive_number(self.rho, "rho")

    def start(self, federation: Federation, initial: Tensor) -> State:
        """g_k = 0, h = 0."""
        gradients = initial.new_zeros(federation.num_clients, len(initial))
        return State({"mean": initial.clone(), "h": initial.new_zeros(len(initial))}, {"gradient": gradients})

    def penalty(self, state: State, task: Task) -> Penalty:
        """(ρ/2 ‖θ − θ_g‖² − ⟨g_k, θ⟩)/w_k."""
        linear = (self.rho * state.server["mean"] + rows(state.clients, "gradient", task)) / task.weights
        return Penalty(self.rho / task.weights, linear)

    def conclude(self, state: State, task: Task, theta: Tensor) -> tuple[Tensors, Tensors]:
        """Sends θ_k, keeps g_k."""
        gradient = rows(state.clients, "gradient", task) - self.rho * (theta - state.server["mean"])
        return {"theta": theta}, {"gradient": gradient}

    def server(self, state: State, federation: Federation, taken: int, sums: Tensors) -> Events:
        """h collects the clients' drift; clients that did not take part count as unmoved."""
        mean = (sums["theta"] / taken).to(state.server["mean"].dtype)
        share = self.rho * taken / federation.num_clients
        state.server["h"] = state.server["h"] - share * (mean - state.server["mean"])
        state.server["mean"] = mean - state.server["h"] / self.rho
        return {}
