"""SCAFFOLD (Karimireddy, Kale, Mohri, Reddi, Stich, Suresh, ICML 2020, arXiv:1910.06378, algorithm 1).

    client   θ_k ← local steps from θ_g with the gradient ∇f_k(θ) − c_k + c
             c_k ← ∇f_k(θ_g) over all its points (option I),  or  c_k − c + (θ_g − θ_k)/(steps · lr) (option II)
    server   θ_g ← θ_g + η Σ_{k∈S} N_k (θ_k − θ_g) / Σ_{k∈S} N_k,   c ← c + Σ_{k∈S} N_k/N (change of c_k)

Weights N_k in place of the paper's equal ones make the fixed point the minimiser of the mean loss over all points.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from badmm.checks import positive_number
from badmm.clients.penalty import Penalty
from badmm.rounds.network_method import Events, PointMethod, State, Tensors, rows, weighted

if TYPE_CHECKING:
    from torch import Tensor

    from badmm.clients.federation import Federation, LocalSettings, Task


@dataclass(frozen=True)
class Scaffold(PointMethod):
    """Control variates; `control` "gradient" is option I (one more pass over the data), "steps" option II."""

    name = "scaffold"
    broadcast = ("mean", "control")
    control: str = "gradient"
    server_step: float = 1.0

    def __post_init__(self) -> None:
        positive_number(self.server_step, "server_step")
        if self.control not in ("gradient", "steps"):
            raise ValueError(f'control: expected "gradient" or "steps", got {self.control!r}')

    def check(self, settings: LocalSettings) -> None:
        """Option II recovers a gradient from plain SGD's steps only."""
        plain = settings.optimizer == "sgd" and settings.momentum == 0 and settings.clip is None
        if self.control == "steps" and not plain:
            raise ValueError(
                'control: expected "gradient" unless the optimizer is sgd without momentum and clip, got "steps"'
            )

    def start(self, federation: Federation, initial: Tensor) -> State:
        """All control variates are 0."""
        self.check(federation.settings)
        zeros = initial.new_zeros(federation.num_clients, len(initial))
        return State({"mean": initial.clone(), "control": initial.new_zeros(len(initial))}, {"control": zeros})

    def penalty(self, state: State, task: Task) -> Penalty:
        """⟨c − c_k, θ⟩."""
        return Penalty(0.0, rows(state.clients, "control", task) - state.server["control"])

    def conclude(self, state: State, task: Task, theta: Tensor) -> tuple[Tensors, Tensors]:
        """Sends the changes of θ and c_k, keeps c_k."""
        mean, old = state.server["mean"], rows(state.clients, "control", task)
        if self.control == "gradient":
            new = task.full_gradient(mean.repeat(len(task.members), 1))
        else:
            length = task.lr * theta.new_tensor(task.steps).unsqueeze(1)
            new = old - state.server["control"] + (mean - theta) / length
        return {"move": theta - mean, "control": new - old}, {"control": new}

    def reduce(self, state: State, federation: Federation, members: Tensor, sent: Tensors) -> Tensors:
        """Weighted by the number of points."""
        return weighted(federation, members, sent)

    def server(self, state: State, federation: Federation, taken: int, sums: Tensors) -> Events:
        """θ_g moves by the weighted mean, c by the weighted sum over K."""
        mean, control = state.server["mean"], state.server["control"]
        state.server["mean"] = mean + self.server_step * (sums["move"] / sums["weight"]).to(mean.dtype)
        state.server["control"] = control + (sums["control"] / federation.num_clients).to(control.dtype)
        return {}
