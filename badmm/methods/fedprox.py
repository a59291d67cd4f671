"""FedProx (Li, Sahu, Zaheer, Sanjabi, Talwalkar, Smith, MLSys 2020, arXiv:1812.06127, eq. 2).

client   θ_k ← local steps on f_k(θ) + ρ/2 ‖θ − θ_g‖² from θ_g       (their μ is ρ; the norm is squared)
server   θ_g ← Σ_k N_k θ_k / Σ_k N_k
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from badmm.checks import non_negative_number
from badmm.clients.penalty import Penalty
from badmm.methods.fedavg import FedAvg
from badmm.rounds.network_method import State

if TYPE_CHECKING:
    from badmm.clients.federation import Task


@dataclass(frozen=True)
class FedProx(FedAvg):
    """FedAvg whose clients are held near the server by a squared distance; ρ ≥ 0 is loss over θ² (0: FedAvg).

    Tuning chose 1e-3 on all three federations of `configs`.
    """

    name = "fedprox"
    rho: float = 1e-3

    def __post_init__(self) -> None:
        non_negative_number(self.rho, "rho")

    def penalty(self, state: State, task: Task) -> Penalty:
        """ρ/2 ‖θ − θ_g‖², up to a constant."""
        return Penalty(self.rho, self.rho * state.server["mean"].unsqueeze(0))
