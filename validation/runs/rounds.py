"""How many rounds a way of running `badmm.solve` needs on a problem of the suite, against the central solution.

Distance: the largest over slots of ‖λ_g − λ*‖₂/‖λ*‖₂ (Frobenius for the precision matrix), λ* from
`oracles.central`. Classic ADMM: the textbook's iteration to the mode, ‖z − m*‖₂/‖m*‖₂, penalty tuned on a grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import badmm

from ..oracles.central import central, distance
from ..oracles.textbook import tune
from ..problems import Problem

FAMILIES = ("full_gaussian", "diagonal_gaussian")
LEVELS = (1e-3, 1e-8)
LIMITS = {"full_gaussian": (1e-8, 25), "diagonal_gaussian": (1e-3, 40)}
"""What the defaults must meet on every problem: a distance, within so many rounds."""
CAP = 45
"""Rounds after which a variant counts as not reaching a level."""
DIVERGED = 1e6
"""A distance beyond which a run is given up."""


@dataclass(frozen=True)
class Variant:
    """A name for the table and the settings it stands for; step sizes may depend on K."""

    title: str
    method: str = "bayes_admm"
    theorem: bool = False
    damping: float | None = None

    def settings(self, num_clients: int) -> dict[str, Any]:
        """Keywords of `badmm.solve`."""
        chosen: dict[str, Any] = {"method": self.method}
        if self.theorem:
            chosen |= {"rho": 1.0 / num_clients, "alpha": 0.5}
        if self.damping is not None:
            chosen["damping"] = self.damping
        return chosen


VARIANTS = (
    Variant("defaults"),
    Variant("ρ = 1/K, γ = 1", theorem=True, damping=1.0),
    Variant("ρ = 1/K, γ = ½", theorem=True, damping=0.5),
    Variant("PVI, γ = 1", method="pvi", damping=1.0),
    Variant("PVI, auto γ", method="pvi"),
    Variant("Bregman", method="bregman_admm"),
)
"""ρ = 1/K comes with α = 1/(1 + ρK) = ½."""


@dataclass(frozen=True)
class Outcome:
    """What happened on one problem: rounds to each of `LEVELS` (None: not reached), and the run's health.

    `margin` is the least distance to the existence condition over the rounds (negative: violated in some round).
    `failure` says how the run ended if not by reaching the last level or the cap. `penalties` are classic ADMM's.
    """

    problem: str
    family: str
    variant: str
    rounds: tuple[int | None, ...]
    distances: tuple[float, ...] = ()
    margin: float = float("inf")
    failure: str = ""
    penalties: tuple[float | None, ...] = ()


class _Enough(Exception):
    """Ends a run from its callback."""


def run(problem: Problem, family: str, variant: Variant, cap: int = CAP) -> Outcome:
    """Rounds from the prior until the last of `LEVELS`, the cap, divergence or a lost client."""
    target = central(problem.name, family)
    distances: list[float] = []
    margins: list[float] = []

    def watch(state: Any) -> None:
        distances.append(distance(state.natural, target))
        margins.append(state.record.condition_margin)
        if not LEVELS[-1] < distances[-1] < DIVERGED:
            raise _Enough

    failure = ""
    try:
        badmm.solve(
            problem.clients(),
            family=family,
            prior=problem.prior(family),
            expectation=problem.expectation(family),
            rounds=cap,
            tol=0.0,
            callbacks=[watch],
            **variant.settings(problem.num_clients),
        )
    except _Enough:
        if not distances[-1] <= LEVELS[-1]:
            failure = f"diverged by round {len(distances)}"
    except badmm.LostClientError as error:
        failure = f"client {error.client} lost in round {len(distances) + 1}"
        margins.append(error.rho - error.required_rho)
    except badmm.ServerDomainError:
        failure = f"server lost in round {len(distances) + 1}"
    reached = tuple(next((i + 1 for i, d in enumerate(distances) if d <= level), None) for level in LEVELS)
    return Outcome(problem.name, family, variant.title, reached, tuple(distances), min(margins), failure)


def run_classic(problem: Problem) -> Outcome:
    """Classic consensus ADMM, for each level with the penalty of the grid that needs the fewest rounds."""
    found = tune(problem, central(problem.name, "isotropic_gaussian").mean, LEVELS)
    return Outcome(problem.name, "isotropic_gaussian", "classic ADMM", found.rounds, penalties=found.penalties)


def meets(outcome: Outcome) -> bool:
    """Whether an outcome meets its family's `LIMITS` without leaving the existence condition."""
    level, limit = LIMITS[outcome.family]
    rounds = outcome.rounds[LEVELS.index(level)]
    return rounds is not None and rounds <= limit and outcome.margin > 0
