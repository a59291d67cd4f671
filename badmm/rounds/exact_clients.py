"""The clients of `badmm.solve` in one process: their λ_k, duals and earlier dual lines, and their answers to messages.

"contribute" down: α, K                   up: Σ c_k as they stand
"measure"  down: λ_g, mixing weights      up: Σ L_k(μ_g), Σ ‖λ_k − λ_g‖² (Fisher), max of the required penalties
"step"     down: ρ, α, γ, K               up: Σ c_k, c_k = (1 − α)/K λ_k − α η_k (or its change), evaluations,
                                              Σ of the squared residuals that more evaluations would lower

A client evaluates its loss once at λ_g: the measure's evaluation is where the next step starts.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from badmm.checks import Array
from badmm.clients.exact import ClientSolution, Tolerance, solve_client
from badmm.clients.problem import BoundClient, ClientProblem, Evaluation, NotFiniteError
from badmm.families.distributions import Distribution
from badmm.families.family import Family, Natural
from badmm.rounds.policy import Steps
from badmm.rounds.workers import Workers
from badmm.transports.messages import Message, Reply, pack, unpack

WORTH_A_THREAD = 1e-3
"""Seconds of a client's evaluation below which clients take turns: Python's lock would cost more than threads give."""


@dataclass(frozen=True)
class _Measured:
    """What a client knows at λ_g."""

    start: Evaluation | None
    loss: float
    squared_distance: float
    required_rho: float


class ExactClients:
    """Clients whose problems are solved to a tolerance; K' of them with indices `first`, `first` + 1, ... of K.

    `dual_line(duals, natural_global, clients, steps)` is the method's. λ_k, η_k and the last sent c_k have a leading
    axis of K'; `lines` remembers the dual lines of earlier rounds for mixing, newest last, at most `memory` + 1.
    """

    def __init__(
        self,
        bound: Sequence[BoundClient],
        family: Family,
        dual_line: Any,
        tolerance: Tolerance,
        memory: int,
        workers: Workers,
        first: int = 0,
    ) -> None:
        self.bound, self.family, self.dual_line = list(bound), family, dual_line
        self.tolerance, self.memory, self.workers, self.first = tolerance, memory, workers, first
        self.natural: Natural = family.prior_natural
        self.clients: Natural = ()
        self.duals: Natural = ()
        self.lines: list[Natural] = []
        self._sent: Natural = ()
        self._measured: dict[int, _Measured] = {}
        self._serial = True

    def __len__(self) -> int:
        return len(self.bound)

    def start(self, natural: Natural, duals: Natural, clients: Natural, lines: Sequence[Natural] = ()) -> None:
        """Begin, or go on, from these; `clients` and `duals` with the leading axis."""
        self.natural, self.duals, self.lines = natural, duals, list(lines)
        self.clients = clients
        self._measured = {}

    def answer(self, message: Message) -> Reply:
        """The reduction over the members that are here."""
        members = [k for k in range(len(self)) if message.members is None or self.first + k in message.members]
        act = {"contribute": self._contribute, "measure": self._measure, "step": self._step}[message.kind]
        return act(message, members)

    def _measure(self, message: Message, members: list[int]) -> Reply:
        self.natural = self.family.parameter(unpack(message.arrays["natural"], self.family.shapes))
        weights = message.arrays.get("weights")
        if weights is not None and self.bound:
            self.duals = mix(self.lines, weights)
        if not members:
            return Reply(message.round, message.digest, 0)
        began = time.perf_counter()
        q = self.family.posterior(self.natural)
        found = self.workers.map(lambda k: self._at_server(k, q), members, self._serial)
        self._serial = self._serial and time.perf_counter() - began < WORTH_A_THREAD * len(members)
        self._measured = dict(zip(members, found, strict=True))
        totals = {
            "loss": sum(one.loss for one in found),
            "squared_distance": sum(one.squared_distance for one in found),
        }
        maxima = {"required_rho": max(one.required_rho for one in found)}
        return Reply(message.round, message.digest, len(members), totals=totals, maxima=maxima)

    def _at_server(self, k: int, q: Distribution) -> _Measured:
        bound, natural = self.bound[k], self.natural
        try:
            start = bound.evaluate(natural, q)
            loss = start.loss
        except NotFiniteError:  # a posterior that is too wide; the client's solver starts from a narrower one
            start, loss = None, bound.loss(q)
        gap = self.family.ns.primal_residual(tuple(slot[k] for slot in self.clients), natural)
        eta = tuple(slot[k] for slot in self.duals)
        distance = self.family.whiten(natural, tuple(np.asarray(slot)[None] for slot in gap))
        return _Measured(start, loss, float(np.sum(distance**2)), bound.required_rho(natural, eta))

    def _step(self, message: Message, members: list[int]) -> Reply:
        if not members:
            return Reply(message.round, message.digest, 0)
        numbers = message.numbers
        steps = Steps(numbers["rho"], numbers["alpha"], numbers["damping"])
        solutions = self.workers.map(lambda k: self._solve(k, steps.rho), members, self._serial)
        self.clients = self._with_rows(self.clients, members, self.family.stack([one.natural for one in solutions]))
        self.duals = self._new_duals(members, steps)
        self.lines = [*self.lines[-self.memory :], self.duals] if numbers["remember"] else []
        change = self._contribution(members, steps.alpha, int(numbers["clients"]), bool(numbers["whole"]))
        evaluations = [solution.evaluations for solution in solutions]
        notes = self._violations(members, steps.rho)
        return Reply(
            message.round,
            message.digest,
            len(members),
            sums={"contribution": change},
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
        problem = ClientProblem(self.bound[k], self.natural, tuple(slot[k] for slot in self.duals), rho)
        return solve_client(problem, self.tolerance, start=self._measured[k].start)

    def _new_duals(self, members: list[int], steps: Steps) -> Natural:
        old, clients = self._rows(self.duals, members), self._rows(self.clients, members)
        return self._with_rows(self.duals, members, self.dual_line(old, self.natural, clients, steps))

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

    def _contribute(self, message: Message, members: list[int]) -> Reply:
        if not members:
            return Reply(message.round, message.digest, 0)
        total = self._contribution(members, message.numbers["alpha"], int(message.numbers["clients"]), True)
        return Reply(message.round, message.digest, len(members), sums={"contribution": total})

    def _contribution(self, members: list[int], alpha: float, num_clients: int, whole: bool) -> Array:
        """Σ c_k over the members, or Σ (c_k − c_k(old)) where some clients are absent."""
        ns, old = self.family.ns, self._rows(self._sent, members)
        clients, duals = self._rows(self.clients, members), self._rows(self.duals, members)
        if whole:
            sent = new = ns.server_contribution(clients, duals, alpha, num_clients)
        else:
            sent = ns.contribution_change(clients, duals, old, alpha, num_clients)
            # what the server has of each client, to the last bit
            new = tuple(before + change for before, change in zip(old, sent, strict=True))
        self._sent = self._with_rows(self._sent, members, tuple(np.asarray(slot) for slot in new))
        return pack(tuple(np.sum(slot, axis=0) for slot in sent))


def mix(lines: Sequence[Natural], weights: Array) -> Natural:
    """η = Σ_i a_i G^i over the newest len(a) rounds, summed from the oldest on."""
    newest = lines[-len(weights) :]
    mixed = tuple(weights[0] * slot for slot in newest[0])
    for weight, line in zip(weights[1:], newest[1:], strict=True):
        for slot, part in zip(mixed, line, strict=True):
            slot += weight * part
    return mixed
