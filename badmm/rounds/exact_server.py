"""The server of `badmm.solve`: step sizes, λ_g from sums of contributions, mixing, and what clients measure at it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from badmm.checks import ServerDomainError
from badmm.families.family import FamilyGeometry, Natural
from badmm.rounds.history import RoundRecord
from badmm.rounds.lines import added, server_line
from badmm.rounds.loop import Ask, Played
from badmm.rounds.mixing import DualMixing
from badmm.rounds.policy import Policy, Steps
from badmm.transports.messages import Arrays, Numbers, Reply


@dataclass
class _Round:
    """What a round leaves at the server, before the clients have measured its λ_g."""

    steps: Steps
    required_rho: float
    remember: bool
    change: Natural = ()
    residual: Natural = ()
    size: float = 0.0
    inexact: float = 0.0
    weights: Any = None


class ExactServer:
    """λ_g and Σ c_k of K clients; `everyone` where all of them take part in every round.

    `changes`: what clients send are changes of c_k, and Σ c_k is a running sum; otherwise it is what is sent.
    `required_rho` is the largest of the penalties that the clients require.
    """

    needs_everyone = True

    def __init__(self, family: FamilyGeometry, policy: Policy, num_clients: int, everyone: bool, changes: bool) -> None:
        self.family, self.policy, self.num_clients = family, policy, num_clients
        self.everyone, self.changes = everyone, changes
        self.mixing = DualMixing(family, family.mixing_memory)
        self.natural: Natural = family.prior_natural
        self.total: Natural = ()
        self.required_rho = float("inf")
        self.events: list[str] = []
        self._round: _Round | None = None
        self._alpha = 1.0
        self._measured = Reply(0, "")

    def start(self, natural: Natural, total: Natural, ask: Ask, *, regrouped: bool = False) -> None:
        """Begin, or go on, at λ_g; the clients measure it, which counts for no round.

        regrouped: clients have left or joined since; λ_g becomes that of the clients that are here, α λ_0 + Σ_k c_k.
        """
        self.natural, self.total = natural, total
        if regrouped or (not self.everyone and not total):
            # a sum over those who take part in a round needs the terms of all
            self._alpha = self._steps(0.0).alpha
            sent = ask("contribute", {"alpha": self._alpha, "clients": float(self.num_clients)}, everyone=True)
            self.total = self._received(sent.sums["contribution"], self._alpha, self._nothing())
            if regrouped:
                self.natural = self._regrouped()
        self.measure(ask)

    def step(self) -> tuple[Numbers, dict[str, Any]]:
        """ρ, α, γ, K, and whether dual lines are to be remembered."""
        steps = self._steps(self.required_rho)
        self._alpha, remember = steps.alpha, steps.mixing and self.everyone
        self._round = _Round(steps, self.required_rho, remember)
        numbers = {"rho": steps.rho, "alpha": steps.alpha, "damping": steps.damping}
        return numbers | {"clients": float(self.num_clients), "remember": float(remember)}, {}

    def update(self, reply: Reply) -> None:
        """Σ c_k, the server line, and the step that stays in the domain."""
        assert self._round is not None
        done, self.events = self._round, []
        before = self.total
        sent = self._received(reply.sums["contribution"], done.steps.alpha, before)
        total = added(before, sent) if self.changes else sent
        # absent clients have no line of this round to mix
        self.total, done.weights = self._mix(before, total, done.remember and not reply.absent)
        proposal = self._line(done.steps.alpha, self.total)
        if done.weights is not None and not self.family.in_domain(proposal):
            self.events.append("server: mixing left the domain, the round's own dual lines were used")
            self.total, done.weights = total, None
            proposal = self._line(done.steps.alpha, self.total)
        inside = self._inside(proposal, done.steps)
        natural = self.family.closest(inside, self.natural)
        goal = natural if inside is proposal else proposal
        done.size = relative(goal, self.natural, natural) / done.steps.damping
        done.residual = tuple(wanted - found for wanted, found in zip(goal, natural, strict=True))
        done.change = tuple(new - old for new, old in zip(natural, self.natural, strict=True))
        # clients are solved as exactly as the round needs: that η_k = ∇L_k(μ_k) is a condition of its own
        done.inexact = float(np.sqrt(reply.totals["squared_residual"] / reply.clients))
        self.natural = self.family.parameter(natural)

    def screen(self, sums: Arrays) -> str | None:
        """Why the line cannot be used with these sums of what was asked for; None where it can."""
        total = self._received(sums["contribution"], self._alpha, self.total)
        inside = self.family.in_domain(self._line(self._alpha, total))
        return None if inside else f"the server's natural parameter would leave that of {self.family.name}"

    def length(self, sums: Arrays) -> float:
        """The length of a term of Σ c_k in the Fisher metric at λ_g."""
        return self._size(self._received(sums["contribution"], self._alpha, self.total))

    @property
    def numbers(self) -> int:
        """In one λ as sent."""
        return self.family.message_doubles

    def inside(self, natural: Any) -> bool:
        """Whether a λ as it is sent lies in the domain."""
        return self.family.in_domain(self.family.unpack(natural))

    def measure(self, ask: Ask) -> None:
        """What the clients find at λ_g, and the weights with which they mix their dual lines."""
        weights = None if self._round is None else self._round.weights
        arrays = {"natural": self.family.pack(self.natural)} | ({} if weights is None else {"weights": weights})
        numbers = {"enough": self.policy.enough(self._round is not None)}
        self._measured = ask("measure", numbers, arrays)
        self.required_rho = self._measured.maxima["required_rho"]
        self.policy.quadratic = self.family.keeps_curvature and not self._measured.maxima["sees_covariance"]

    def record(self, played: Played) -> RoundRecord:
        """The record of the round just played, from which the step sizes of the next follow."""
        assert self._round is not None
        done, measured, evaluations = self._round, self._measured, played.reply
        primal = float(np.sqrt(measured.totals["squared_distance"] / measured.clients))
        alpha = done.steps.alpha
        dual = (self._size(done.residual) + (1.0 - alpha) * primal) / alpha
        gap = max(primal, dual, done.inexact)
        self.policy.observe(done.size, done.steps.mixing, gap, primal, self._size(done.change))
        return RoundRecord(
            round=played.round,
            gap=gap,
            primal_residual=primal,
            dual_residual=dual,
            client_residual=done.inexact,
            objective=self._objective(measured),
            bytes_up=played.bytes_up,
            bytes_down=played.bytes_down,
            seconds=played.seconds,
            rho=done.steps.rho,
            alpha=alpha,
            damping=done.steps.damping,
            evaluations=int(evaluations.totals["evaluations"]),
            most_evaluations=int(evaluations.maxima["evaluations"]),
            condition_margin=done.steps.rho - done.required_rho,
            mixed=0 if done.weights is None else len(done.weights) - 1,
            absent=len({*played.reply.absent, *measured.absent}),
            events=[*played.reply.notes, *played.events],
        )

    def _steps(self, required_rho: float) -> Steps:
        return self.policy.steps(lambda: required_rho, lambda: self.family.fisher_bound(self.natural))

    def _received(self, message: Any, alpha: float, before: Natural) -> Natural:
        """What clients sent: Σ c_k, or its change from `before` where they send changes."""
        known = before if self.changes and before else self._nothing()
        return self.family.unpack_sum(message, self.natural, self._line(alpha, known))

    def _nothing(self) -> Natural:
        return tuple(np.zeros_like(slot) for slot in self.natural)

    def _line(self, alpha: float, total: Natural) -> Natural:
        """λ_g ← α λ_0 + Σ c_k; may lie outside the domain."""
        slots = server_line(self.family.ns, self.family.prior_natural, total, alpha)
        return tuple(np.asarray(slot) for slot in slots)

    def _regrouped(self) -> Natural:
        natural = self._line(self._alpha, self.total)
        if not self.family.in_domain(natural):
            raise ServerDomainError(
                f"the natural parameter of the clients that are left is outside the domain of {self.family.name}"
            )
        return self.family.parameter(natural)

    def _mix(self, before: Natural, total: Natural, remember: bool) -> tuple[Natural, Any]:
        """Σ c_k after mixing, and the weights of the remembered rounds (None: the round's own dual lines)."""
        if not remember:
            self.mixing.reset()
            return total, None
        # at α = 1 a contribution is −G_k, and what it was before is −η_k
        lines = tuple(-slot for slot in total)
        change = tuple(old - new for old, new in zip(before, total, strict=True))
        weights = self.mixing.weights(self.natural, lines, change)
        if len(weights) == 1:
            return total, None
        return tuple(-slot for slot in self.mixing.mixed(weights)), weights

    def _inside(self, proposal: Natural, steps: Steps) -> Natural:
        """The proposal, or the first of its halvings towards the last λ_g that lies in the domain."""
        if self.family.in_domain(proposal):
            return proposal
        if not self.policy.safeguarded:
            raise ServerDomainError(
                f"the server's natural parameter left the domain of {self.family.name} at rho = {steps.rho:.6g}, "
                f'alpha = {steps.alpha:.6g}, damping = {steps.damping:.6g}; a smaller damping, or "auto", keeps it'
            )
        t = 0.5
        while t > 1e-12:
            candidate = tuple(b + t * (p - b) for b, p in zip(self.natural, proposal, strict=True))
            if self.family.in_domain(candidate):
                self.events.append(f"server: step shortened to {t:.3g} of its length to stay in the domain")
                return candidate
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
