"""Rounds that `badmm.solve` needs to reach the central solution of a problem of the suite, by settings.

The distance is the largest ‖λ_g − λ*‖₂/‖λ*‖₂ over slots (Frobenius norm for a precision matrix), with λ* from
`oracles.central`. For classic ADMM it is ‖z − m*‖₂/‖m*‖₂ to the mode m*, and the penalty is tuned on a grid.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import badmm
from badmm.methods import ExactMethod
from badmm.rounds.policy import Policy, Setting, Steps

from ..oracles.central import central, distance
from ..oracles.textbook import tune
from ..problems import SuiteProblem

FAMILIES = ("full_gaussian", "diagonal_gaussian")
LEVELS = (1e-3, 1e-8)
LIMITS = {"full_gaussian": (1e-8, 25), "diagonal_gaussian": (1e-3, 40)}
"""Requirement for the defaults on every problem: (distance, number of rounds)."""
CAP = 45
"""Rounds after which a variant counts as not reaching a level."""
DIVERGED = 1e6
"""Distance at which a run is stopped as diverged."""


@dataclass(frozen=True)
class SolverSettings:
    """Settings of `badmm.solve` with a title for the table; step sizes may depend on K."""

    title: str
    method: str | type[ExactMethod] = "bayes_admm"
    theorem: bool = False
    damping: float | None = None

    def settings(self, num_clients: int) -> dict[str, Any]:
        """Return the keywords of `badmm.solve`."""
        chosen: dict[str, Any] = {"method": self.method}
        if self.theorem:
            chosen |= {"rho": 1.0 / num_clients, "alpha": 0.5}
        if self.damping is not None:
            chosen["damping"] = self.damping
        return chosen


class _MixingPolicy(Policy):
    """The defaults as they are where rounds do not converge quadratically."""

    def steps(self, required_rho: Callable[[], float], fisher_bound: Callable[[], float] | None = None) -> Steps:
        """The next round's step sizes."""
        self.quadratic = False
        return super().steps(required_rho, fisher_bound)


class _Mixing(ExactMethod):
    name = "mixing"

    @classmethod
    def policy(
        cls, num_clients: int, rho: Setting, alpha: Setting, damping: Setting, mixed_damping: float = 0.0
    ) -> Policy:
        """ρ = 1/K, then 1, and dual lines that are mixed."""
        return _MixingPolicy(num_clients, rho, alpha, damping, mixed_damping=mixed_damping)


VARIANTS = (
    SolverSettings("defaults"),
    SolverSettings("Newton", method="newton"),
    SolverSettings("ρ = 1/K, γ = 1", theorem=True, damping=1.0),
    SolverSettings("ρ = 1/K, γ = ½", theorem=True, damping=0.5),
    SolverSettings("PVI, γ = 1", method="pvi", damping=1.0),
    SolverSettings("PVI, auto γ", method="pvi"),
    SolverSettings("Bregman", method="bregman_admm"),
)
"""ρ = 1/K implies α = 1/(1 + ρK) = ½."""
DELTA = "full_gaussian, delta method"
"""The full family with losses taken at the mean, whose central solution is the mode with the curvature there."""
DELTA_VARIANTS = (
    *VARIANTS[:2],
    SolverSettings("PVI, γ = 1", method="pvi", damping=1.0),
    SolverSettings("mixing", _Mixing),
)
"""Under the delta method the first must need no more rounds than the best of the others, to either of `LEVELS`."""


@dataclass(frozen=True)
class SuiteOutcome:
    """The result on one problem: rounds to each of `LEVELS`, None if a level is not reached.

    margin: smallest distance to the existence condition over the rounds; negative if a round violates it. failure:
    reason of an early end, empty if the run reached its goal or the cap. penalties: those of classic ADMM.
    """

    problem: str
    family: str
    variant: str
    rounds: tuple[int | None, ...]
    distances: tuple[float, ...] = ()
    margin: float = float("inf")
    failure: str = ""
    penalties: tuple[float | None, ...] = ()


class _StopRun(Exception):
    """Raised by a callback to end a run."""


def run(
    problem: SuiteProblem, title: str, variant: SolverSettings, cap: int = CAP, goal: float = LEVELS[-1]
) -> SuiteOutcome:
    """Run the solver from the prior until a distance of at most `goal`, the cap, divergence or a lost client.

    `title` is a family's name or `DELTA`.
    """
    delta = title == DELTA
    family = "full_gaussian" if delta else title
    target = central(problem.name, family, delta)
    distances: list[float] = []
    margins: list[float] = []

    def watch(state: Any) -> None:
        distances.append(distance(state.natural, target))
        margins.append(state.record.condition_margin)
        if not goal < distances[-1] < DIVERGED:
            raise _StopRun

    failure = ""
    try:
        badmm.solve(
            problem.clients(),
            family=family,
            prior=problem.prior(family),
            expectation="delta" if delta else problem.expectation(family),
            rounds=cap,
            tol=0.0,
            callbacks=[watch],
            **variant.settings(problem.num_clients),
        )
    except _StopRun:
        if not distances[-1] <= goal:
            failure = f"diverged by round {len(distances)}"
    except badmm.LostClientError as error:
        failure = f"client {error.client} lost in round {len(distances) + 1}"
        margins.append(error.rho - error.required_rho)
    except badmm.ClientError as error:
        failure = f"client {error.client} left the number range in round {len(distances) + 1}"
    except badmm.ServerDomainError:
        failure = f"server lost in round {len(distances) + 1}"
    reached = tuple(next((i + 1 for i, d in enumerate(distances) if d <= level), None) for level in LEVELS)
    margin = min(margins, default=float("inf"))
    return SuiteOutcome(problem.name, title, variant.title, reached, tuple(distances), margin, failure)


def run_classic(problem: SuiteProblem) -> SuiteOutcome:
    """Run classic consensus ADMM with the penalty of the grid that needs the fewest rounds for each level."""
    found = tune(problem, central(problem.name, "isotropic_gaussian").mean, LEVELS)
    return SuiteOutcome(problem.name, "isotropic_gaussian", "classic ADMM", found.rounds, penalties=found.penalties)


def within_bound(outcomes: Mapping[str, SuiteOutcome]) -> bool:
    """Return whether the defaults need no more rounds than the best of `DELTA_VARIANTS`, by title, at every level."""
    first, *others = (outcomes[variant.title].rounds for variant in DELTA_VARIANTS)

    def count(rounds: int | None) -> float:
        return float("inf") if rounds is None else rounds

    return all(count(ours) <= min(map(count, theirs)) for ours, *theirs in zip(first, *others, strict=True))


def within_limits(outcome: SuiteOutcome) -> bool:
    """Return whether an outcome is within its family's `LIMITS` and never violates the existence condition."""
    level, limit = LIMITS[outcome.family]
    rounds = outcome.rounds[LEVELS.index(level)]
    return rounds is not None and rounds <= limit and outcome.margin > 0
