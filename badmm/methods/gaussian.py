"""What methods with a diagonal Gaussian posterior share, and the clients that descend on its mean and deviation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from badmm.families.distributions import Gaussian
from badmm.families.registry import bind
from badmm.methods.admm import AdmmMethod
from badmm.rounds.lines import Slots
from badmm.rounds.network_method import Events, Reply, State, Tensors

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from badmm.clients.federation import Federation, LocalSettings, Task
    from badmm.clients.training import LocalSolver
    from badmm.clients.variational import GaussianDescent

DUALS = ("dual_precision_mean", "dual_precision")
UNBOUNDED = "cavities_unbounded"
"""The event of coordinates at which a flat loss leaves nothing that bounds a client's mean."""
FALL = 0.5
"""The part of its precision that a coordinate of the server may lose in a round."""


class GaussianMethod(AdmmMethod):
    """λ = (S m, S) of diagonal Gaussians; the prior is N(0, 1/precision).

    A coordinate of the server that would lose more than half of its precision goes the part of the way in λ at which it
    loses half, and is counted: near the domain's boundary the mean ξ/S has no bound. A client whose λ_k has a precision
    that is not positive is left out of the round.
    """

    family = "diagonal_gaussian"
    slots = broadcast = ("precision_mean", "precision")

    def member(self, mean: Tensor, precision: Tensor) -> Slots:
        """λ of N(mean, 1/precision)."""
        return tuple(self._kernels(mean).natural_from_standard(mean.contiguous(), precision.contiguous()))

    def mean(self, state: State) -> Tensor:
        """m_g."""
        return state.server["precision_mean"] / state.server["precision"]

    def sample(self, state: State, count: int, generator: torch.Generator) -> Tensor:
        """Draws from N(m_g, 1/S_g)."""
        mean = self.mean(state)
        return mean + mean.new_empty(count, len(mean)).normal_(generator=generator) * self.deviation(state)

    def deviation(self, state: State) -> Tensor:
        """1/√S_g."""
        return state.server["precision"].rsqrt()

    def fisher_bound(self, state: State) -> float:
        """An upper bound on the largest eigenvalue of the Fisher information at λ_g."""
        mean, precision = (t.double().cpu().numpy() for t in (self.mean(state), state.server["precision"]))
        family = bind(self.family, Gaussian(mean, precision))
        return family.fisher_bound(family.prior_natural)

    def acceptable(self, reply: Reply) -> Tensor:
        """Rows with a positive precision."""
        return (reply.kept["precision"] > 0).all(dim=1)

    def reduce(self, state: State, federation: Federation, members: Tensor, sent: Tensors) -> Tensors:
        """Sums, and how many coordinates have a problem without a bound: the cavity's precision is not positive."""
        unbounded = (self._cavity(state, federation, members)[1] <= 0).sum()
        return {**super().reduce(state, federation, members, sent), UNBOUNDED: unbounded}

    def server(self, state: State, federation: Federation, taken: int, sums: Tensors) -> Events:
        """The server line; what was damped and what is unbounded is counted."""
        counts = {**super().server(state, federation, taken, sums), UNBOUNDED: int(sums[UNBOUNDED])}
        return {name: count for name, count in counts.items() if count}

    def inside(self, old: Slots, new: Slots) -> tuple[Slots, Events]:
        """Damped where a coordinate's precision would fall by more than half."""
        damped = ~(new[1] >= (1.0 - FALL) * old[1])
        part = FALL * old[1] / (old[1] - new[1])
        found = tuple(before.lerp(after, part).where(damped, after) for before, after in zip(old, new, strict=True))
        return found, {"coordinates_damped": int(damped.sum())}


class VariationalMethod(GaussianMethod):
    """Clients solve argmin_q E_q[ℓ_k]/τ − ⟨η_k, μ⟩ + ρ KL(q‖q_g) by `GaussianDescent`.

    The first round starts at the network's initialisation with the standard deviation `initial_sd`, later ones at q_g.
    """

    initial_sd: float
    samples: int

    def check(self, settings: LocalSettings) -> None:
        """Refuses `weight_decay`."""
        refuse_weight_decay(settings)

    def start(self, federation: Federation, initial: Tensor) -> State:
        """λ_g = λ_0, duals 0."""
        self.check(federation.settings)
        return self.first(federation, initial)

    def solver(self, state: State, task: Task) -> GaussianDescent:
        """Descent from the server's posterior."""
        from badmm.clients.variational import GaussianDescent

        mean, deviation = self.mean(state), self.deviation(state)
        if state.round == 0:
            mean, deviation = state.server["initial"], deviation.new_full(deviation.shape, self.initial_sd)
        return GaussianDescent(task, mean, deviation, self.cavity(state, task), self.ess(state, task), self.samples)

    def natural(self, state: State, task: Task, solver: LocalSolver) -> Slots:
        """From mean and log standard deviation."""
        mean, log_sd = solver.variables.split(solver.size, dim=1)  # type: ignore[attr-defined]
        return self.member(mean, (-2.0 * log_sd).exp())


def refuse_weight_decay(settings: LocalSettings) -> None:
    """ValueError for a `weight_decay`: the prior is the method's, and variables of a posterior are trained."""
    if settings.weight_decay != 0:
        raise ValueError(f"local.weight_decay: expected 0, as the method has a prior, got {settings.weight_decay!r}")
