"""The server of `badmm.solve`: step sizes, λ_g from sums of contributions, mixing, and the record of a round."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from badmm.checks import ServerDomainError
from badmm.families.family import Family, Natural
from badmm.rounds.exchange import Exchange, participants
from badmm.rounds.history import RoundRecord
from badmm.rounds.mixing import DualMixing
from badmm.rounds.policy import Policy, Steps
from badmm.transports.messages import Arrays, Reply, pack, unpack


class Rule(Protocol):
    """What the server needs of a method."""

    policy: Policy

    def steps(self, natural_global: Natural, required_rho: Callable[[], float]) -> Steps:
        """The next round's step sizes."""


@dataclass
class _Round:
    """What a round leaves at the server, before the clients have measured its λ_g."""

    steps: Steps
    required_rho: float
    natural: Natural
    server_residual: Natural
    size: float
    weights: Any = None
    events: list[str] = field(default_factory=list)


class ExactServer:
    """λ_g and Σ c_k of K clients, of which a `fraction` takes part in a round; `required_rho` is the clients' largest.

    With absent clients Σ c_k is a running sum of changes, otherwise it is what the round's clients send.
    """

    def __init__(
        self,
        family: Family,
        method: Rule,
        exchange: Exchange,
        num_clients: int,
        memory: int,
        fraction: float,
        seed: int,
    ) -> None:
        self.family, self.method, self.exchange, self.num_clients = family, method, exchange, num_clients
        self.fraction, self.seed = fraction, seed
        self.whole = len(participants(num_clients, 0, fraction, seed)) == num_clients
        self.mixing = DualMixing(family, memory)
        self.index = 0
        self.natural: Natural = family.prior_natural
        self.total: Natural = ()
        self.required_rho = float("inf")

    def start(self, index: int, natural: Natural, total: Natural = ()) -> None:
        """Begin, or go on after round `index`, at λ_g; the clients measure it, which counts for no round."""
        self.index, self.natural = index, natural
        counted = self.exchange.bytes_up, self.exchange.bytes_down
        if not self.whole:
            # changes are against what every client has sent before
            alpha = self.method.steps(natural, lambda: 0.0).alpha
            sent = self.exchange.ask("contribute", index, {"alpha": alpha, "clients": float(self.num_clients)})
            total = total or unpack(sent.sums["contribution"], self.family.shapes)
        self.total = total
        self.required_rho = self._measure(None).maxima["required_rho"]
        if index:
            self.exchange.bytes_up, self.exchange.bytes_down = counted

    def round(self) -> RoundRecord:
        """One round: client and dual lines, Σ c_k, the server line, and what the clients measure at the new λ_g."""
        began = time.perf_counter()
        done, replied = self._advance()
        change = tuple(new - old for new, old in zip(done.natural, self.natural, strict=True))
        self.natural = self.family.parameter(done.natural)
        self.index += 1
        measured = self._measure(done.weights)
        self.required_rho = measured.maxima["required_rho"]
        primal = float(np.sqrt(measured.totals["squared_distance"] / measured.clients))
        alpha = done.steps.alpha
        dual = (self._size(done.server_residual) + (1.0 - alpha) * primal) / alpha
        # clients are solved as exactly as the round needs: that η_k = ∇L_k(μ_k) is a condition of its own
        inexact = float(np.sqrt(replied.totals["squared_residual"] / replied.clients))
        gap = max(primal, dual, inexact)
        self.method.policy.observe(done.size, done.steps.mixing, gap, primal, self._size(change))
        mixed = 0 if done.weights is None else len(done.weights) - 1
        return RoundRecord(
            round=self.index,
            gap=gap,
            primal_residual=primal,
            dual_residual=dual,
            client_residual=inexact,
            objective=self._objective(measured),
            bytes_up=self.exchange.bytes_up,
            bytes_down=self.exchange.bytes_down,
            seconds=time.perf_counter() - began,
            rho=done.steps.rho,
            alpha=alpha,
            damping=done.steps.damping,
            evaluations=int(replied.totals["evaluations"]),
            most_evaluations=int(replied.maxima["evaluations"]),
            condition_margin=done.steps.rho - done.required_rho,
            mixed=mixed,
            absent=len({*replied.failures, *measured.failures}),
            events=[*replied.notes, *done.events],
        )

    def _members(self) -> tuple[int, ...] | None:
        if self.whole:
            return None
        return tuple(participants(self.num_clients, self.index, self.fraction, self.seed))

    def _measure(self, weights: Any) -> Reply:
        arrays = {"natural": pack(self.natural)} | ({} if weights is None else {"weights": weights})
        return self.exchange.ask("measure", self.index, arrays=arrays, members=self._members())

    def _advance(self) -> tuple[_Round, Reply]:
        required = self.required_rho
        steps = self.method.steps(self.natural, lambda: required)
        remember = steps.mixing and self.whole
        numbers = {
            "rho": steps.rho,
            "alpha": steps.alpha,
            "damping": steps.damping,
            "clients": float(self.num_clients),
            "whole": float(self.whole),
            "remember": float(remember),
        }

        def screen(sums: Arrays) -> str | None:
            inside = self.family.in_domain(self._line(unpack(sums["contribution"], self.family.shapes), steps.alpha))
            return None if inside else f"the server's natural parameter would leave that of {self.family.name}"

        reply = self.exchange.ask("step", self.index, numbers, members=self._members(), screen=screen)
        sent = unpack(reply.sums["contribution"], self.family.shapes)
        before = self.total
        total = sent if self.whole else tuple(a + b for a, b in zip(before, sent, strict=True))
        # clients that were lost on the way have no line of this round to mix
        self.total, weights, events = self._mix(before, total, remember and not reply.failures)
        proposal = self._line(self.total, steps.alpha)
        if weights is not None and not self.family.in_domain(proposal):
            events.append("server: mixing left the domain, the round's own dual lines were used")
            self.total, weights = total, None
            proposal = self._line(self.total, steps.alpha)
        natural, shortened = self._inside(proposal, steps)
        size = relative(proposal, self.natural, natural) / steps.damping
        residual = tuple(wanted - found for wanted, found in zip(proposal, natural, strict=True))
        return _Round(steps, required, natural, residual, size, weights, events + shortened), reply

    def _line(self, total: Natural, alpha: float) -> Natural:
        """λ_g ← α λ_0 + Σ c_k; may lie outside the domain."""
        slots = self.family.ns.server_update(self.family.prior_natural, total, alpha)
        return tuple(np.asarray(slot) for slot in slots)

    def _mix(self, before: Natural, total: Natural, remember: bool) -> tuple[Natural, Any, list[str]]:
        """Σ c_k after mixing, and the weights of the remembered rounds (None: the round's own dual lines)."""
        if not remember:
            self.mixing.reset()
            return total, None, []
        # at α = 1 a contribution is −G_k, and what it was before is −η_k
        lines = tuple(-slot for slot in total)
        change = tuple(old - new for old, new in zip(before, total, strict=True))
        weights = self.mixing.weights(self.natural, lines, change)
        if len(weights) == 1:
            return total, None, []
        return tuple(-slot for slot in self.mixing.mixed(weights)), weights, []

    def _inside(self, proposal: Natural, steps: Steps) -> tuple[Natural, list[str]]:
        """The proposal, or the first of its halvings towards the last λ_g that lies in the domain."""
        if self.family.in_domain(proposal):
            return proposal, []
        if not self.method.policy.safeguarded:
            raise ServerDomainError(
                f"the server's natural parameter left the domain of {self.family.name} at rho = {steps.rho:.6g}, "
                f'alpha = {steps.alpha:.6g}, damping = {steps.damping:.6g}; a smaller damping, or "auto", keeps it'
            )
        t = 0.5
        while t > 1e-12:
            candidate = tuple(b + t * (p - b) for b, p in zip(self.natural, proposal, strict=True))
            if self.family.in_domain(candidate):
                return candidate, [f"server: step shortened to {t:.3g} of its length to stay in the domain"]
            t *= 0.5
        raise ServerDomainError(f"the server found no step inside the domain of {self.family.name}")

    def _size(self, change: Natural) -> float:
        """The length of a change of λ in the Fisher metric at λ_g; exactly 0 for none."""
        if not any(slot.any() for slot in change):
            return 0.0
        return float(np.linalg.norm(self.family.whiten(self.natural, tuple(slot[None] for slot in change))))

    def _objective(self, measured: Reply) -> float:
        """Σ_k L_k(μ_g) + KL(q_g‖p_0), the sum scaled up from the clients that took part."""
        loss = measured.totals["loss"] * (self.num_clients / measured.clients)
        return loss + self.family.kl(self.natural, self.family.prior_natural)


def relative(new: Natural, old: Natural, scale: Natural) -> float:
    """max over slots of ‖new − old‖ / ‖scale‖; 0 where nothing moved."""
    worst = 0.0
    for a, b, size in zip(new, old, scale, strict=True):
        miss = float(np.linalg.norm(a - b))
        if miss:
            length = float(np.linalg.norm(size))
            worst = max(worst, miss / length if length else float("inf"))
    return worst
