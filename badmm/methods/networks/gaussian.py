"""What methods with a diagonal Gaussian posterior share: natural parameters at the server, duals, the server line."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from badmm.clients.federation import Federation, LocalSettings, Task
from badmm.rounds.lines import Lines, Slots
from badmm.rounds.network_method import Events, Method, Reply, State, Tensors, rows

FAMILY = "diagonal_gaussian"
SLOTS = ("precision_mean", "precision")
DUALS = ("dual_precision_mean", "dual_precision")
UNBOUNDED = "cavities_unbounded"
"""The event of coordinates at which a flat loss leaves nothing that bounds a client's mean."""
FALL = 0.5
"""The part of its precision that a coordinate of the server may lose in a round."""


class GaussianMethod(Method):
    """λ_g = (S_g m_g, S_g) at the server, duals (η_ξ, η_S) at the clients; the prior is N(0, 1/precision).

    A client sends c_k = (1 − α)/K λ_k − α η_k and keeps its dual. A coordinate of the server that would lose more than
    half of its precision goes the part of the way in λ at which it loses half, and is counted: near the domain's
    boundary the mean ξ/S has no bound. A client whose λ_k has a precision that is not positive is left out of the
    round.
    """

    broadcast = SLOTS
    precision: float

    @abstractmethod
    def steps(self, state: State, federation: Federation) -> tuple[float, float, float]:
        """ρ, α, γ of the round."""

    def dual(self, lines: Lines, duals: Slots, server: Slots, clients: Slots, rho: float, damping: float) -> Slots:
        """η_k ← η_k + γρ (λ_g − λ_k), by the kernel."""
        return lines.call("dual_update", duals, server, clients, rho, damping)

    def prior_precision(self, federation: Federation, initial: Tensor) -> Tensor:
        """The prior's precision of every coordinate, (P,); `initial` (P,) is the network's initialisation."""
        return torch.full_like(initial, self.precision)

    def first(self, federation: Federation, initial: Tensor) -> State:
        """λ_g = λ_0, duals 0; the network's initialisation is where the first round's clients start."""
        Lines(FAMILY, initial.device)  # RuntimeError before any training where the device has no kernels
        precision = self.prior_precision(federation, initial)
        zeros = initial.new_zeros(federation.num_clients, len(initial))
        server = {"precision_mean": torch.zeros_like(initial), "precision": precision, "initial": initial.clone()}
        return State(server, {name: zeros.clone() for name in DUALS})

    def mean(self, state: State) -> Tensor:
        """m_g."""
        return state.server["precision_mean"] / state.server["precision"]

    def sample(self, state: State, count: int, generator: torch.Generator) -> Tensor:
        """Draws from N(m_g, 1/S_g)."""
        mean = self.mean(state)
        noise = torch.empty(count, len(mean), dtype=mean.dtype, device=mean.device).normal_(generator=generator)
        return mean + noise * self.deviation(state)

    def deviation(self, state: State) -> Tensor:
        """1/√S_g."""
        return state.server["precision"].rsqrt()

    def exchange(self, state: State, task: Task, natural: Slots) -> tuple[Tensors, Tensors]:
        """(sent, kept) of clients that ended at λ_k: it goes into c_k, the dual line's result is kept."""
        rho, _, damping = self.steps(state, task.federation)
        lines = Lines(FAMILY, natural[0].device)
        old = tuple(rows(state.clients, name, task) for name in DUALS)
        new = self.dual(lines, old, server_natural(state), natural, rho, damping)
        return dict(zip(SLOTS, natural, strict=True)), dict(zip(DUALS, new, strict=True))

    def acceptable(self, reply: Reply) -> Tensor:
        """Rows with a positive precision."""
        return (reply.sent["precision"] > 0).all(dim=1)

    def reduce(self, state: State, federation: Federation, members: Tensor, sent: Tensors) -> Tensors:
        """Σ_k c_k, and how many coordinates of clients have a problem without a bound: ρ S_g + η_S ≤ 0."""
        rho, alpha, _ = self.steps(state, federation)
        clients, duals = tuple(sent[name] for name in SLOTS), tuple(state.clients[name] for name in DUALS)
        total = Lines(FAMILY, members.device).contribution(clients, duals, members, alpha)
        unbounded = (rho * state.server["precision"] + duals[1][members] <= 0).sum()
        return {**dict(zip(SLOTS, total, strict=True)), UNBOUNDED: unbounded.to(total[0].dtype)}

    def server(self, state: State, federation: Federation, taken: int, sums: Tensors) -> Events:
        """The server line, damped where a coordinate's precision would fall by more than half; these are counted."""
        _, alpha, _ = self.steps(state, federation)
        old = server_natural(state)
        prior = (torch.zeros_like(old[0]), self.prior_precision(federation, state.server["initial"]))
        new = Lines(FAMILY, old[0].device).server(prior, tuple(sums[name] for name in SLOTS), alpha)
        damped = ~(new[1] >= (1.0 - FALL) * old[1])
        part = FALL * old[1] / (old[1] - new[1])
        for name, before, after in zip(SLOTS, old, new, strict=True):
            state.server[name] = torch.where(damped, torch.lerp(before, after, part), after)
        counts = {"coordinates_damped": int(damped.sum()), UNBOUNDED: int(sums[UNBOUNDED])}
        return {name: count for name, count in counts.items() if count}


def refuse_weight_decay(settings: LocalSettings) -> None:
    """ValueError for a `weight_decay`: the prior is the method's, and variables of a posterior are trained."""
    if settings.weight_decay != 0:
        raise ValueError(f"local.weight_decay: expected 0, as the method has a prior, got {settings.weight_decay!r}")


def server_natural(state: State) -> Slots:
    """λ_g."""
    return tuple(state.server[name] for name in SLOTS)
