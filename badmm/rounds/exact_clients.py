"""The clients of `badmm.solve` in one process: their λ_k, duals and earlier dual lines, and their answers to messages.

"contribute" down: α, K                   up: Σ c_k as they stand
"measure"  down: λ_g, mixing weights,     up: Σ L_k(μ_g), Σ ‖λ_k − λ_g‖² (Fisher), max of the required penalties (those
                 a penalty that is enough         below what is enough count as that), whether some ∇L_k depends on more
                                              than the mean
"step"     down: ρ, α, γ, K               up: Σ c_k, c_k = (1 − α)/K λ_k − α η_k (or its change), evaluations,
                                              Σ of the squared residuals that more evaluations would lower

A client evaluates its loss once at λ_g: the measure's evaluation is where the next step starts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np

from badmm.checks import Array, ClientError
from badmm.clients.exact import ClientSolution, solve_client
from badmm.clients.problem import BoundClient, ClientProblem, Evaluation, NotFiniteError, Slope
from badmm.clients.tolerance import Tolerance
from badmm.families.distributions import Distribution
from badmm.families.family import FamilyGeometry, Natural, arrays
from badmm.rounds.lines import added, contributions
from badmm.rounds.loop import Deadline
from badmm.rounds.workers import Workers
from badmm.transports.messages import Message, Reply

Result = TypeVar("Result")
WORTH_A_THREAD = 1e-3
"""CPU seconds of an evaluation below which clients take turns: Python's lock would cost more than threads give."""


@dataclass(frozen=True)
class _Measured:
    """What a client knows at λ_g."""

    start: Slope | None
    loss: float
    squared_distance: float
    required_rho: float
    seconds: float


class DualLine(Protocol):
    """A method's dual line (`badmm.methods.admm.Admm.dual`)."""

    def __call__(self, ns: Any, duals: Any, server: Any, clients: Any, rho: float, damping: float, **fixed: Any) -> Any:
        """η_k (K, ...) after the clients' step to λ_k (K, ...), by the family's kernels."""


class ExactClients:
    """Clients whose problems are solved to a tolerance; K' of them with indices `first`, `first` + 1, ... of K.

    λ_k, η_k and the last sent c_k have a leading axis of K'; `lines` remembers the dual lines of earlier rounds for
    mixing, newest last. `sent` is empty where all clients take part in every round. terms: what is sent is Σ c_k of all
    clients here, whoever takes part, and no change of it: the engine keeps it for the rounds without them.
    """

    def __init__(
        self,
        bound: Sequence[BoundClient],
        family: FamilyGeometry,
        dual_line: DualLine,
        tolerance: Tolerance,
        workers: Workers,
        first: int = 0,
        *,
        terms: bool = False,
    ) -> None:
        self.bound, self.family, self.dual_line = list(bound), family, dual_line
        self.tolerance, self.workers, self.first, self.terms = tolerance, workers, first, terms
        self.natural: Natural = family.prior_natural
        self.clients: Natural = ()
        self.duals: Natural = ()
        self.sent: Natural = ()
        self.lines: list[Natural] = []
        self.errors: dict[int, ClientError] = {}
        self._measured: dict[int, _Measured] = {}
        self._serial = True

    def __len__(self) -> int:
        return len(self.bound)

    def start(
        self, natural: Natural, duals: Natural, clients: Natural, sent: Natural = (), lines: Sequence[Natural] = ()
    ) -> None:
        """Begin, or go on, from these; `clients`, `duals` and `sent` with the leading axis."""
        self.natural, self.duals, self.clients, self.sent, self.lines = natural, duals, clients, sent, list(lines)
        self._measured = {}

    def answer(self, message: Message, deadline: Deadline) -> Reply:
        """The reduction over the members that are here; the first that raises or is late is the only failure."""
        members = [k for k in range(len(self)) if message.members is None or self.first + k in message.members]
        act = {"contribute": self._contribute, "measure": self._measure, "step": self._step}[message.kind]
        self.errors = {}
        if not members:
            return Reply(message.round, message.digest, 0)
        try:
            return act(message, members, deadline)
        except ClientError as error:
            self.errors = {error.client: error}
            return Reply(message.round, message.digest, 0, failures={error.client: error.reason})

    def _each(self, work: Callable[[int], Result], members: list[int], deadline: Deadline) -> list[Result]:
        """work(k) of the members in their order; ClientError for one that is done after the deadline."""

        def timely(k: int) -> Result:
            found = work(k)
            if (late := deadline.missed()) is not None:
                raise ClientError(self.first + k, late)
            return found

        return self.workers.map(timely, members, self._serial)

    def _measure(self, message: Message, members: list[int], deadline: Deadline) -> Reply:
        self.natural = self.family.unpack(message.arrays["natural"])
        weights = message.arrays.get("weights")
        if weights is not None and self.bound:
            self.duals = mix(self.lines, weights)
        q = self.family.posterior(self.natural)
        enough = message.numbers.get("enough", -np.inf)
        found = self._each(lambda k: self._at_server(k, q, enough), members, deadline)
        self._serial = sum(one.seconds for one in found) < WORTH_A_THREAD * len(members)
        self._measured = dict(zip(members, found, strict=True))
        totals = {
            "loss": sum(one.loss for one in found),
            "squared_distance": sum(one.squared_distance for one in found),
        }
        maxima = {
            "required_rho": max(one.required_rho for one in found),
            "sees_covariance": float(any(self.bound[k].sees_covariance for k in members)),
        }
        return Reply(message.round, message.digest, len(members), totals=totals, maxima=maxima)

    def _at_server(self, k: int, q: Distribution, enough: float) -> _Measured:
        bound, natural = self.bound[k], self.natural
        began = time.thread_time()
        try:
            # where there is no penalty, the client's step is this evaluation
            start = bound.slope(natural, q) if enough < np.inf else bound.evaluate(natural, q)
            loss = start.loss
        except NotFiniteError:  # a posterior that is too wide; the client's solver starts from a narrower one
            start, loss = None, bound.loss(q)
        gap = self.family.ns.primal_residual(tuple(slot[k] for slot in self.clients), natural)
        eta = tuple(slot[k] for slot in self.duals)
        distance = self.family.whiten(natural, tuple(np.asarray(slot)[None] for slot in gap))
        required = bound.required_rho(natural, eta, enough) if enough < np.inf else -np.inf
        return _Measured(start, loss, float(np.sum(distance**2)), required, time.thread_time() - began)

    def _step(self, message: Message, members: list[int], deadline: Deadline) -> Reply:
        numbers = message.numbers
        rho = numbers["rho"]
        solutions = self._each(lambda k: self._solve(k, rho), members, deadline)
        self.clients = self._with_rows(self.clients, members, self.family.stack([one.natural for one in solutions]))
        self.duals = self._with_rows(self.duals, members, self._dual_line(members, rho, numbers["damping"]))
        memory = self.family.mixing_memory
        self.lines = [*self.lines[-memory:], self.duals] if numbers["remember"] else []
        evaluations = [solution.evaluations for solution in solutions]
        notes = self._violations(members, rho)
        return Reply(
            message.round,
            message.digest,
            len(members),
            sums={"contribution": self._contribution(message, members)},
            totals={
                "evaluations": float(sum(evaluations)),
                "squared_residual": sum(solution.inexact**2 for solution in solutions),
            },
            maxima={"evaluations": float(max(evaluations))},
            notes=(*notes, *(event for solution in solutions for event in solution.events)),
        )

    def _violations(self, members: list[int], rho: float) -> list[str]:
        return [
            f"client {self.first + k}: existence condition violated at rho = {rho:.6g}, holds for "
            f"rho > {self._measured[k].required_rho:.6g}"
            for k in members
            if self._measured[k].required_rho >= rho
        ]

    def _solve(self, k: int, rho: float) -> ClientSolution:
        if rho == float("inf"):
            return ClientSolution(self.natural, 0.0, 0)
        problem = ClientProblem(self.bound[k], self.natural, tuple(slot[k] for slot in self.duals), rho)
        return solve_client(problem, self.tolerance, start=self._measured[k].start)

    def _dual_line(self, members: list[int], rho: float, damping: float) -> Natural:
        if rho == float("inf"):
            return self._gradient_line(members, damping)
        ns, fixed = self.family.ns, self.family.fixed
        old, clients = self._rows(self.duals, members), self._rows(self.clients, members)
        return arrays(self.dual_line(ns, old, self.natural, clients, rho, damping, **fixed))

    def _gradient_line(self, members: list[int], damping: float) -> Natural:
        """(1 − γ) η_k + γ ∇L_k(μ_g): the dual line for ρ → ∞, where λ_k → λ_g and ρ (λ_g − λ_k) → ∇L_k − η_k."""
        slopes = [self._start(k).natural_gradient for k in members]
        lines = zip(self._rows(self.duals, members), self.family.stack(slopes), strict=True)
        return tuple((1.0 - damping) * old + damping * new for old, new in lines)

    def _start(self, k: int) -> Evaluation:
        """The client at λ_g; its error where its loss is not finite there."""
        start = self._measured[k].start
        return start if isinstance(start, Evaluation) else self.bound[k].evaluate(self.natural)

    def _rows(self, slots: Natural, members: list[int]) -> Natural:
        return slots if len(members) == len(self) else tuple(slot[members] for slot in slots)

    def _with_rows(self, slots: Natural, members: list[int], new: Natural) -> Natural:
        """The slots with new rows for the members; earlier rounds' states keep the old arrays."""
        if len(members) == len(self):
            return new
        slots = tuple(np.array(slot) for slot in slots)
        for slot, part in zip(slots, new, strict=True):
            slot[members] = part
        return slots

    def _contribute(self, message: Message, members: list[int], deadline: Deadline) -> Reply:
        """Σ c_k of all clients, which are remembered: what is sent later are changes."""
        self.sent = self._contributions(message, members)
        total = self.family.pack_sum(tuple(np.sum(slot, axis=0) for slot in self.sent), self.natural)
        return Reply(message.round, message.digest, len(members), sums={"contribution": total})

    def _contributions(self, message: Message, members: list[int], before: Natural | None = None) -> Natural:
        alpha, count = message.numbers["alpha"], int(message.numbers["clients"])
        clients, duals = self._rows(self.clients, members), self._rows(self.duals, members)
        return arrays(contributions(self.family.ns, clients, duals, alpha, count, before))

    def _contribution(self, message: Message, members: list[int]) -> Array:
        """Σ c_k over the clients here, or Σ (c_k − c_k(old)) over the members where some clients are absent."""
        if message.members is None or self.terms:
            change = self._contributions(message, list(range(len(self))))
        else:
            old = self._rows(self.sent, members)
            change = self._contributions(message, members, old)
            # what the server has of each client, to the last bit
            self.sent = self._with_rows(self.sent, members, added(old, change))
        return self.family.pack_sum(tuple(np.sum(slot, axis=0) for slot in change), self.natural)


def mix(lines: Sequence[Natural], weights: Array) -> Natural:
    """η = Σ_i a_i G^i over the newest len(a) rounds, summed from the oldest on."""
    newest = lines[-len(weights) :]
    mixed = tuple(weights[0] * slot for slot in newest[0])
    for weight, line in zip(weights[1:], newest[1:], strict=True):
        for slot, part in zip(mixed, line, strict=True):
            slot += weight * part
    return mixed
