"""The contenders, and the run of one of them: distance to the central solution and bytes sent by round."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

import badmm
from badmm.checks import Array
from badmm.demo.problems import DemoProblem
from badmm.experiments.plots import style as plots

PENALTIES = tuple(float(f"{10**exponent:.3g}") for exponent in np.arange(-1.0, 2.01, 0.5))
"""Grid of classic ADMM's penalty ρs in units of the prior's precision s."""

TARGETS = (1e-3, 1e-8)
STALL = 60
"""A contender whose distance does not decrease by a tenth in this many rounds is stopped, which the table reports."""
CENTRAL_TOLERANCE = 1e-12


@dataclass(frozen=True)
class Contender:
    """One row of the table: the arguments of `badmm.solve` and the style of the curve."""

    label: str
    family: str
    method: str
    color: str
    marker: str
    dashed: bool = False
    rho: float | None = None

    @property
    def tuned(self) -> bool:
        """Whether the penalty is tuned (classic ADMM), not chosen by the solver."""
        return self.label == CLASSIC

    def with_penalty(self, rho: float | None) -> Contender:
        """Return the contender with a penalty, which implies the paper's α = 1/(1+ρK) for K clients."""
        return replace(self, rho=rho)


CLASSIC = "classic ADMM"

CONTENDERS = (
    Contender(CLASSIC, "isotropic_gaussian", "bayes_admm", plots.BLACK, "s"),
    Contender("Bregman, diagonal", "diagonal_gaussian", "bregman_admm", plots.PINK, "v", True),
    Contender("Bregman, full", "full_gaussian", "bregman_admm", plots.PINK, "v"),
    Contender("PVI, diagonal", "diagonal_gaussian", "pvi", plots.ORANGE, "D", True),
    Contender("PVI, full", "full_gaussian", "pvi", plots.ORANGE, "D"),
    Contender("Bayes, diagonal", "diagonal_gaussian", "bayes_admm", plots.BLUE, "o", True),
    Contender("Bayes, full", "full_gaussian", "bayes_admm", plots.BLUE, "o"),
)


@dataclass
class Trace:
    """Distance to the central solution and bytes sent after every round, and the last posterior.

    start: distance of the prior, at which every contender starts.
    """

    distance: list[float] = field(default_factory=list)
    bytes_sent: list[int] = field(default_factory=list)
    posterior: Any = None
    start: float = 1.0
    failure: str = ""
    rho: float | None = None

    def rounds_to(self, target: float) -> int | None:
        """Return the first round with a relative distance of at most `target`, or None."""
        reached = np.flatnonzero(np.array(self.distance) <= target)
        return int(reached[0]) + 1 if reached.size else None

    def bytes_to(self, target: float) -> int | None:
        """Return the bytes of all clients, up and down, until that round."""
        rounds = self.rounds_to(target)
        return None if rounds is None else self.bytes_sent[rounds - 1]


class _StopRun(Exception):
    """Raised by a callback to end `badmm.solve`."""


def distance(natural: tuple[Array, ...], central: tuple[Array, ...]) -> float:
    """Return the largest ‖λ − λ*‖ / ‖λ*‖ over slots (2-norm over all entries of the slot)."""
    return max(float(np.linalg.norm(a - b) / np.linalg.norm(b)) for a, b in zip(natural, central, strict=True))


def central_solution(problem: DemoProblem, family: str) -> badmm.Result:
    """Return the family's solution on the pooled data: one client, ρ = α = γ = 1."""
    return badmm.solve(
        [problem.central],
        family=family,
        prior=problem.prior,
        expectation=problem.expectation(family),
        rho=1.0,
        alpha=1.0,
        damping=1.0,
        rounds=200,
        tol=CENTRAL_TOLERANCE,
        client_tol=1e-13,
        workers=1,
    )


def compete(problem: DemoProblem, contender: Contender, central: tuple[Array, ...], rounds: int, seed: int) -> Trace:
    """Run a contender until it reaches the smallest target, fails, or has used its rounds."""
    trace = Trace(rho=contender.rho)

    def watch(state: Any) -> None:
        trace.distance.append(distance(state.natural, central))
        trace.bytes_sent.append(state.record.bytes_up + state.record.bytes_down)
        trace.posterior = state.posterior
        if trace.distance[-1] <= min(TARGETS):
            raise _StopRun
        if len(trace.distance) > STALL and min(trace.distance[-STALL:]) > 0.9 * min(trace.distance[:-STALL]):
            trace.failure = f"distance not reduced by a tenth in {STALL} rounds (round {len(trace.distance)})"
            raise _StopRun

    steps: dict[str, Any] = {}
    if contender.rho is not None:
        steps = {"rho": contender.rho, "alpha": 1 / (1 + contender.rho * len(problem.clients)), "damping": 1.0}
    try:
        badmm.solve(
            problem.clients,
            family=contender.family,
            method=contender.method,
            prior=problem.prior,
            expectation=problem.expectation(contender.family),
            rounds=rounds,
            tol=0.0,
            seed=seed,
            # a run has a process of its own on one core (badmm.demo.outcome)
            workers=1,
            callbacks=(watch,),
            **steps,
        )
    except _StopRun:
        pass
    except (ValueError, ArithmeticError, RuntimeError, np.linalg.LinAlgError) as error:
        trace.failure = str(error)
    return trace
