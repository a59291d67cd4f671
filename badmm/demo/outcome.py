"""What one split of one problem gives: every contender's trace, and the scores of every family's posterior."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from badmm.demo.contest import CONTENDERS, Contender, Trace, central_solution, compete, tune
from badmm.demo.problems import Problem, make
from badmm.predictive import Scores

FAMILIES = {"isotropic_gaussian": "isotropic", "diagonal_gaussian": "diagonal", "full_gaussian": "full"}
_DELIVERED_BY = "bayes_admm"
"""The method whose posterior is scored; every method that converges ends in the same one."""


@dataclass(frozen=True)
class Outcome:
    """One split: traces by contender, posteriors by family's short name, scores by family and way of predicting."""

    problem: Problem
    seed: int
    traces: Mapping[str, Trace]
    posteriors: Mapping[str, Any]
    scores: Mapping[tuple[str, str], Scores]


def play(name: str, seed: int, rounds: int, tuned: float | None, report: Callable[[str], None]) -> Outcome:
    """All contenders on one split; `tuned` is classic ADMM's penalty ρ where it is already known."""
    problem = make(name, seed)
    centrals = {family: central_solution(problem, family) for family in FAMILIES}

    def run(contender: Contender, budget: int) -> Trace:
        return compete(problem, contender, centrals[contender.family].natural, budget, seed)

    traces: dict[str, Trace] = {}
    posteriors: dict[str, Any] = {}
    for contender in CONTENDERS:
        report(contender.label)
        if contender.family != "isotropic_gaussian":
            trace = run(contender, rounds)
        elif tuned is None:
            trace = tune(contender, run, rounds)
        else:
            trace = run(contender.with_penalty(tuned), rounds)
        traces[contender.label] = trace
        if contender.method == _DELIVERED_BY and trace.posterior is not None:
            posteriors[FAMILIES[contender.family]] = trace.posterior
    ways = {"averaged": True, "plug-in": False}
    scores = {
        (family, way): problem.scores(posterior, averaged=averaged)
        for family, posterior in posteriors.items()
        for way, averaged in ways.items()
    }
    return Outcome(problem, seed, traces, posteriors, scores)


def spread(values: Iterable[float | int | None]) -> tuple[float, float, int]:
    """Mean, standard deviation (ddof 1, 0 for one value) and the number of splits without a value."""
    listed = list(values)
    known = np.array([value for value in listed if value is not None], dtype=float)
    if not known.size:
        return float("nan"), float("nan"), len(listed)
    return float(known.mean()), float(known.std(ddof=1)) if known.size > 1 else 0.0, len(listed) - known.size
