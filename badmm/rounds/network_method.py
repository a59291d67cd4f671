"""What makes one federated method differ from another: its client's objective, what it sends, its server line."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

from badmm.checks import Array
from badmm.rounds import network_buffers as buffers
from badmm.rounds.history import flat, grouped

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from badmm.clients.federation import Federation, LocalSettings, Task
    from badmm.clients.penalty import Penalty
    from badmm.clients.training import LocalSolver, PenalizedDescent

Tensors = dict[str, Any]
"""Tensors by name. Nothing here imports torch, which convex problems do without, before networks train."""
Events = dict[str, int]


@dataclass
class State:
    """All that goes on to the next round: the server's tensors, the clients' rows (K, ...), and the rounds played."""

    server: Tensors
    clients: Tensors
    round: int = 0

    def to_arrays(self) -> tuple[dict[str, Array], dict[str, Any]]:
        """(arrays by name, metadata that JSON can hold); `from_arrays` is the inverse."""
        groups = {"server": self.server, "clients": self.clients}
        return flat({group: {k: t.cpu().numpy() for k, t in part.items()} for group, part in groups.items()}), {}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array], round: int, device: torch.device | str = "cpu") -> Self:
        """The state after so many rounds, on a device; ValueError for other arrays than those of `to_arrays`."""
        import torch

        parts = grouped(arrays, ("server", "clients"))
        tensors = {g: {k: torch.from_numpy(a).to(device) for k, a in part.items()} for g, part in parts.items()}
        return cls(tensors["server"], tensors["clients"], round)


@dataclass(frozen=True)
class Reply:
    """What k clients give back: `sent` to the server, `kept` as their new rows of `State.clients`; all (k, ...).

    `losses` (k,) are the mean losses of their minibatches.
    """

    sent: Tensors
    kept: Tensors
    losses: Tensor

    def finite(self) -> Tensor:
        """Which rows hold nothing but finite numbers, (k,)."""
        good = self.losses.isfinite()
        for rows in (*self.sent.values(), *self.kept.values()):
            sums = rows.flatten(1).sum(dim=1).isfinite()  # at once; a sum may overflow where no term is infinite
            good = good & (sums if sums.all() else rows.flatten(1).isfinite().all(dim=1))
        return good


class NetworkMethod(ABC):
    """A federated method. Its settings are the fields of a frozen dataclass, checked where it is made.

    A round: every stack of clients runs `client` (a local solver trained by `training.train`, then `reply`); the rows
    that pass `Reply.finite` and `acceptable` are kept, `reduce` adds up what those clients sent, and `server` gets the
    sums. To add a method, subclass, name it and list it in `badmm.methods`, or leave the file where it is and name it
    in a configuration ("file.py:Class"). A client with an optimizer of its own (IVON) returns its own `LocalSolver`
    from `solver`. Stacks may train in several threads, so that `client` reads what the server broadcast and the rows of
    its own members only.
    """

    name: ClassVar[str]
    broadcast: ClassVar[tuple[str, ...]] = ("mean",)
    """The tensors of `State.server` that a client receives; where its first local training starts it knows."""

    def check(self, settings: LocalSettings) -> None:  # noqa: B027
        """ValueError where the local optimizer's settings do not suit the method; by default all do."""

    @abstractmethod
    def start(self, federation: Federation, initial: Tensor) -> State:
        """The state before the first round; `initial` (P,) is the network's initialisation. ValueError as `check`."""

    @abstractmethod
    def solver(self, state: State, task: Task) -> LocalSolver:
        """The local solver of the task's clients."""

    @abstractmethod
    def reply(self, state: State, task: Task, solver: LocalSolver) -> tuple[Tensors, Tensors]:
        """(sent, kept) of the trained clients; must not change `state`."""

    def reduce(self, state: State, federation: Federation, members: Tensor, sent: Tensors) -> Tensors:
        """Sums, in float64 and in the order of clients, of what the clients `members` (sorted) sent, (|S|, ...) each.

        Their rows are already stored. By default plain sums; weighted ones hold the weights' sum under `weight`.
        """
        return {name: total(rows) for name, rows in sent.items()}

    @abstractmethod
    def server(self, state: State, federation: Federation, taken: int, sums: Tensors) -> Events:
        """Update `state.server` from the sums over the `taken` clients; `state.clients` is not the server's to read.

        Returns counts of what had to be done to stay in the domain.
        """

    def client(self, state: State, task: Task) -> Reply:
        """One round of the task's clients; buffers go with what they send, and with what they keep where local."""
        from badmm.clients.training import train

        task = replace(task, buffers=buffers.of_task(state.server, state.clients, task))
        solver = self.solver(state, task)
        losses = train(task, solver)
        sent, kept = self.reply(state, task, solver)
        if task.buffers is not None:
            sent = {**sent, buffers.NAME: task.buffers}
            kept = {**kept, buffers.NAME: task.buffers} if buffers.NAME in state.clients else kept
        return Reply(sent, kept, losses)

    def acceptable(self, reply: Reply) -> Tensor:
        """Which finite replies the server can use, (k,)."""
        return reply.losses.isfinite()

    def mean(self, state: State) -> Tensor:
        """The server's parameters (P,), at which it is evaluated."""
        return state.server["mean"]

    def sample(self, state: State, count: int, generator: torch.Generator) -> Tensor | None:
        """Draws (count, P) from the server's posterior; None for a method without one."""
        return None

    def deviation(self, state: State) -> Tensor | None:
        """The posterior's standard deviations (P,); None for a method without one."""
        return None


class DescentMethod(NetworkMethod):
    """A method whose clients descend on f_k(θ) + penalty, starting at the server's mean unless `begin` says else."""

    def penalty(self, state: State, task: Task) -> Penalty | None:
        """What is added to the client's mean loss."""
        return None

    def begin(self, state: State, task: Task) -> Tensor:
        """Where the clients start, (k, P): at `initial` in the first round where the server keeps one."""
        first = state.round == 0 and "initial" in state.server
        start = state.server["initial"] if first else self.mean(state)
        return start.expand(len(task.members), -1)

    def solver(self, state: State, task: Task) -> PenalizedDescent:
        """Descent with the penalty."""
        from badmm.clients.training import PenalizedDescent

        return PenalizedDescent(self.begin(state, task), task, self.penalty(state, task))


class PointMethod(DescentMethod):
    """Such a method without a posterior."""

    def reply(self, state: State, task: Task, solver: LocalSolver) -> tuple[Tensors, Tensors]:
        """From the end points (k, P)."""
        return self.conclude(state, task, solver.variables)  # type: ignore[attr-defined]

    @abstractmethod
    def conclude(self, state: State, task: Task, theta: Tensor) -> tuple[Tensors, Tensors]:
        """(sent, kept) from where the clients ended, θ (k, P)."""


def total(rows: Tensor, weights: Tensor | None = None) -> Tensor:
    """Σ_k w_k row_k over the first axis in float64, in the order of the rows; without weights w_k = 1."""
    result = rows.new_zeros(rows.shape[1:]).double()
    factors = [1.0] * len(rows) if weights is None else weights.double().tolist()
    for row, factor in zip(rows, factors, strict=True):
        result.add_(row, alpha=factor)
    return result


def weighted(federation: Federation, members: Tensor, sent: Tensors) -> Tensors:
    """Sums with the clients' weights w_k = K N_k/N, and Σ w_k under `weight`."""
    weights = federation.weights[members]
    return {name: total(rows, weights) for name, rows in sent.items()} | {"weight": weights.double().sum()}


def rows(tensors: Mapping[str, Tensor], name: str, task: Task) -> Tensor:
    """The members' rows of a client tensor, (k, ...)."""
    return tensors[name][task.index]
