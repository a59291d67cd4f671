"""What the engines' tests and the programs that they start agree on."""

from __future__ import annotations

from typing import Any

from badmm.demo.problems import DemoProblem

PROBLEMS = [
    (name, family)
    for name in ("diabetes", "breast_cancer", "digits")
    for family in ("full_gaussian", "diagonal_gaussian")
]
ROUNDS = 4
"""Rounds of each problem: enough for mixing to begin; every one of them is compared bit for bit anyway."""


def solve_arguments(problem: DemoProblem, family: str) -> dict[str, Any]:
    return {
        "family": family,
        "prior": problem.prior,
        "expectation": problem.expectation(family),
        "rounds": ROUNDS,
    }
