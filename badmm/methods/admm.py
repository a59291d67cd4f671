"""What methods with duals share: the dual line and the step sizes for any client, the round for stacks of networks."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from badmm.methods import persistence
from badmm.rounds.lines import Slots, added, contributions, kernels, server_line
from badmm.rounds.network_method import Events, NetworkMethod, State, Tensors
from badmm.rounds.policy import Policy, Setting, Steps
from badmm_kernels.scalars import effective_sample_size

if TYPE_CHECKING:
    from torch import Tensor

    from badmm.clients.federation import Federation, Task
    from badmm.clients.training import LocalSolver


class Admm:
    """The lines in which methods with duals differ."""

    name: ClassVar[str]

    @classmethod
    def policy(
        cls, num_clients: int, rho: Setting, alpha: Setting, damping: Setting, mixed_damping: float = 0.0
    ) -> Policy:
        """The step sizes of K clients from explicit values or "auto"; ValueError for what the method does not allow.

        `mixed_damping` is the γ at which the family's dual lines may be mixed.
        """
        return Policy(num_clients, rho, alpha, damping, mixed_damping=mixed_damping)

    @staticmethod
    def dual(ns: Any, duals: Slots, server: Slots, clients: Slots, rho: float, damping: float, **fixed: Any) -> Slots:
        """η_k ← η_k + γρ (λ_g − λ_k), by the family's kernels `ns`, whose fixed parameters are `fixed`."""
        return tuple(ns.dual_update(duals, server, clients, rho, damping))


class ExactMethod(Admm):
    """A method of `badmm.solve`: its clients' problems are solved to a tolerance.

    To add one, subclass, name it and override `policy` or `dual`; list it in `badmm.methods`, or leave the file where
    it is and pass the class, "module:Class" or "file.py:Class".
    """


class AdmmMethod(Admm, NetworkMethod):
    """A method with duals for stacks of networks: λ_g at the server, λ_k and η_k at the clients.

    A client sends how its c_k = (1 − α)/K λ_k − α η_k has changed, and the server keeps the sum: who is absent or left
    out keeps its λ_k and η_k in the server line. The prior is N(0, 1/precision), the temperature τ.

    Penalties may differ: with ρ_k = ρ w_k, Σ_k w_k = K, the lines are those of clients w_k λ_k with duals η_k against
    w_k λ_g, and c_k = (1 − α) w_k/K λ_k − α η_k. The fixed point is the same.
    """

    family: ClassVar[str]
    slots: ClassVar[tuple[str, ...]]
    """The tensors of λ at the server, and of λ_k at the clients; those of η_k are called `dual_…`, Σ c_k `total_…`."""
    precision: float | Literal["auto"]
    damping: float | Literal["auto"]
    temperature: float | Literal["auto"]

    @abstractmethod
    def member(self, mean: Tensor, precision: Tensor) -> Slots:
        """λ of the Gaussian with this mean and precision."""

    @abstractmethod
    def natural(self, state: State, task: Task, solver: LocalSolver) -> Slots:
        """λ_k of the trained clients, (k, P) each."""

    def settings(self) -> tuple[Setting, Setting, Setting]:
        """ρ, α, γ as the method has them, numbers or "auto"; ρ = α = 1 where a method does not say otherwise."""
        return 1.0, 1.0, self.damping

    def steps(self, state: State, federation: Federation) -> Steps:
        """ρ, α, γ of the round."""
        policy = self.policy(federation.num_clients, *self.settings())
        return policy.steps(lambda: 0.0, lambda: self.fisher_bound(state))

    def fisher_bound(self, state: State) -> float:
        """An upper bound on the largest eigenvalue of the Fisher information at λ_g."""
        raise NotImplementedError(f"{self.name}: its step sizes need no Fisher information")

    def penalties(self, federation: Federation, index: Tensor) -> Tensor:
        """w_k of the penalties ρ_k = ρ w_k of some clients, (k, 1); 1 where a method does not say otherwise."""
        return federation.weights.new_ones(len(index), 1)

    def tau(self, federation: Federation, initial: Tensor) -> float:
        """τ; `initial` (P,) is the network's initialisation."""
        return float(self.temperature)

    def ess(self, state: State, task: Task) -> Tensor:
        """The clients' effective sample sizes N_k/(τρ_k), (k, 1)."""
        tau = self.tau(task.federation, state.server["initial"])
        sizes = task.sizes / self.penalties(task.federation, task.index)
        ess: Tensor = effective_sample_size(sizes, tau, self.steps(state, task.federation).rho)
        return ess

    def dampings(self, state: State, task: Task, natural: Slots) -> Tensors:
        """γ_k and what else of it the clients keep, by `persistence`; nothing where γ is the same for all."""
        return {}

    def cavity(self, state: State, task: Task) -> Slots:
        """The clients' cavities λ_g + η_k/ρ_k, (k, P) each."""
        return self._cavity(state, task.federation, task.index)

    def prior_precision(self, federation: Federation, initial: Tensor) -> Tensor:
        """The prior's precision of every coordinate, (P,)."""
        return initial.new_full(initial.shape, float(self.precision))

    def first(self, federation: Federation, initial: Tensor, natural: Slots | None = None) -> State:
        """λ_g = λ_k = `natural`, η_k = (λ_0 − λ_g) w_k/K: the server line holds at the start, and leads nowhere else
        before clients have learned. λ_0 and duals 0 where it is left out; the first round trains at the initialisation.
        """
        prior = self._prior(federation, initial)
        natural = prior if natural is None else natural
        server = {**dict(zip(self.slots, natural, strict=True)), "initial": initial.clone()}
        clients = {name: slot.repeat(federation.num_clients, 1) for name, slot in server.items() if name in self.slots}
        share = self.penalties(federation, federation.weights.new_ones(federation.num_clients).nonzero()[:, 0])
        share = share / federation.num_clients
        missing = tuple((a.double() - b.double()) for a, b in zip(prior, natural, strict=True))
        clients |= {
            f"dual_{name}": share * own.to(initial.dtype) for name, own in zip(self.slots, missing, strict=True)
        }
        state = State(server, clients)
        # the sum of the c_k is that of one client of one, which has all of the duals
        alike = tuple(slot.double() for slot in natural)
        total = contributions(self._kernels(initial), alike, missing, self.steps(state, federation).alpha, 1)
        server |= {f"total_{name}": slot for name, slot in zip(self.slots, total, strict=True)}
        return state

    def reply(self, state: State, task: Task, solver: LocalSolver) -> tuple[Tensors, Tensors]:
        """Sends the change of c_k, keeps λ_k and η_k."""
        steps, count = self.steps(state, task.federation), task.federation.num_clients
        ns, natural = self._kernels(task.sizes), self.natural(state, task, solver)
        clients, duals = self._of(state, "", task.index), self._of(state, "dual_", task.index)
        weights, own = self.penalties(task.federation, task.index), self.dampings(state, task, natural)
        old, ends = _scaled(clients, weights), _scaled(natural, weights)
        # the dual line with γ_k w_k in place of γ and w_k, where clients have steps of their own
        stepped, damping = (weights * own[persistence.NAME], 1.0) if own else (weights, steps.damping)
        server = self.global_natural(state)
        new = self.dual(ns, duals, _scaled(server, stepped), _scaled(natural, stepped), steps.rho, damping)
        before = contributions(ns, old, duals, steps.alpha, count)
        change = contributions(ns, ends, new, steps.alpha, count, before)
        kept = {f"dual_{name}": slot for name, slot in zip(self.slots, new, strict=True)}
        sent = dict(zip(self.slots, change, strict=True)) | {n: v for n, v in own.items() if n == persistence.NAME}
        return sent, dict(zip(self.slots, natural, strict=True)) | kept | own

    def server(self, state: State, federation: Federation, taken: int, sums: Tensors) -> Events:
        """λ_g ← α λ_0 + Σ_k c_k, and what `inside` makes of it."""
        alpha, old = self.steps(state, federation).alpha, self.global_natural(state)
        if persistence.NAME in sums:
            state.server[persistence.NAME] = sums[persistence.NAME] / taken
        totals = [f"total_{name}" for name in self.slots]
        total = added([state.server[name] for name in totals], [sums[name] for name in self.slots])
        prior = tuple(slot.double() for slot in self._prior(federation, state.server["initial"]))
        new = server_line(self._kernels(old[0]), prior, total, alpha)
        inside, events = self.inside(old, tuple(slot.to(before.dtype) for slot, before in zip(new, old, strict=True)))
        state.server |= dict(zip(totals, total, strict=True)) | dict(zip(self.slots, inside, strict=True))
        return events

    def inside(self, old: Slots, new: Slots) -> tuple[Slots, Events]:
        """The server's λ_g from where it was and where its line leads, and counts of what was held back."""
        return new, {}

    def global_natural(self, state: State) -> Slots:
        """λ_g."""
        return tuple(state.server[name] for name in self.slots)

    def _prior(self, federation: Federation, initial: Tensor) -> Slots:
        return self.member(initial.new_zeros(initial.shape), self.prior_precision(federation, initial))

    def _kernels(self, tensor: Tensor) -> Any:
        return kernels(self.family, tensor.device)

    def _cavity(self, state: State, federation: Federation, index: Tensor) -> Slots:
        duals = _scaled(self._of(state, "dual_", index), 1.0 / self.penalties(federation, index))
        rho = self.steps(state, federation).rho
        return tuple(self._kernels(duals[0]).cavity(self.global_natural(state), duals, rho))

    def _of(self, state: State, prefix: str, index: Tensor) -> Slots:
        return tuple(state.clients[f"{prefix}{name}"][index] for name in self.slots)


def _scaled(slots: Slots, weights: Tensor) -> Slots:
    """Slots (P,) or (k, P) times weights (k, 1); as they are where all weights are 1."""
    return slots if bool((weights == 1).all()) else tuple((slot * weights).contiguous() for slot in slots)
