"""FedAvg (McMahan, Moore, Ramage, Hampson, Agüera y Arcas, AISTATS 2017, arXiv:1602.05629).

    client   θ_k ← local steps on f_k from θ_g
    server   θ_g ← Σ_k N_k θ_k / Σ_k N_k

Its fixed point is the minimiser of F only for one local step: more steps pull each θ_k towards its own minimiser.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from badmm.rounds.network_method import Events, PointMethod, State, Tensors, weighted

if TYPE_CHECKING:
    from torch import Tensor

    from badmm.clients.federation import Federation, Task


@dataclass(frozen=True)
class FedAvg(PointMethod):
    """Averages of local models, weighted by the number of points."""

    name = "fedavg"

    def start(self, federation: Federation, initial: Tensor) -> State:
        """The network's initialisation."""
        return State({"mean": initial.clone()}, {})

    def conclude(self, state: State, task: Task, theta: Tensor) -> tuple[Tensors, Tensors]:
        """Sends θ_k, keeps nothing."""
        return {"theta": theta}, {}

    def reduce(self, state: State, federation: Federation, members: Tensor, sent: Tensors) -> Tensors:
        """Weighted by the number of points."""
        return weighted(federation, members, sent)

    def server(self, state: State, federation: Federation, taken: int, sums: Tensors) -> Events:
        """The average over the clients that took part."""
        state.server["mean"] = (sums["theta"] / sums["weight"]).to(state.server["mean"].dtype)
        return {}
