"""Whole runs of the solver where two families must take the same steps.

On losses that separate over coordinates the full Gaussian's precision stays diagonal, so the full and the diagonal
family must agree round by round, in the server's natural parameter: on quadratics with diagonal Hessians to 1e-13 of
the largest entry, on logistic and Poisson regression with one feature a row to 1e-11 (each client is solved to
1e-12).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ..calls import Array
from ..check import Check, check
from ..points import generator

GROUP = "agreement"
FAMILIES = ("full_gaussian",)  # whose rounds these checks follow
DIMENSION, CLIENTS, ROUNDS = 5, 4, 5
SETTINGS: tuple[dict[str, Any], ...] = (
    {"rho": 0.5, "alpha": 0.3, "damping": 0.7},
    {"rho": 1.0, "alpha": 1.0, "damping": 0.5},
)
Slots = tuple[Array, ...]


def one_hot(rng: np.random.Generator, rows: int) -> Array:
    """A design matrix with one nonzero feature a row, every feature present."""
    columns = np.concatenate([np.arange(DIMENSION), rng.integers(0, DIMENSION, rows - DIMENSION)])
    design = np.zeros((rows, DIMENSION))
    design[np.arange(rows), columns] = rng.uniform(0.5, 1.5, rows) * rng.choice((-1.0, 1.0), rows)
    return design


def problems() -> dict[str, tuple[list[Any], float]]:
    """Clients with separable losses, and the tolerance of the families' agreement."""
    from badmm import likelihoods

    rng = generator("family rounds")
    quadratic, logistic, poisson = [], [], []
    for _ in range(CLIENTS):
        hessian, linear = np.diag(rng.uniform(0.2, 5.0, DIMENSION)), rng.normal(size=DIMENSION)
        quadratic.append(likelihoods.Quadratic(hessian, linear))
        design = one_hot(rng, 20)
        logistic.append(likelihoods.LogisticRegression(design, rng.integers(0, 2, 20)))
        poisson.append(likelihoods.PoissonRegression(0.5 * design, rng.integers(0, 4, 20)))
    return {
        "quadratics with diagonal Hessians": (quadratic, 1e-13),
        "logistic regression, one feature a row": (logistic, 1e-11),
        "Poisson regression, one feature a row": (poisson, 1e-11),
    }


def path(family: str, clients: Sequence[Any], settings: dict[str, Any]) -> list[Slots]:
    """The server's natural parameter after every round."""
    import badmm

    precision = np.eye(DIMENSION) if family == "full_gaussian" else np.ones(DIMENSION)
    prior = badmm.Gaussian(np.full(DIMENSION, 0.25), 1.5 * precision)
    found: list[Slots] = []
    note: Callable[[Any], None] = lambda state: found.append(tuple(np.array(slot) for slot in state.natural))  # noqa: E731
    badmm.solve(clients, family=family, prior=prior, rounds=ROUNDS, tol=0.0, callbacks=(note,), **settings)
    return found


def apart(full: Slots, diagonal: Slots) -> float:
    """Largest difference relative to the slot's largest entry; what is off the diagonal counts as a difference."""
    pairs = ((full[0], diagonal[0]), (full[1], np.diag(diagonal[1])))
    return max(float(np.max(np.abs(a - b)) / np.max(np.abs(b))) for a, b in pairs)


def checks() -> Iterator[Check]:
    """The full against the diagonal family, problem by problem and setting by setting."""
    for name, (clients, tolerance) in problems().items():
        for settings in SETTINGS:
            full, diagonal = (path(family, clients, settings) for family in ("full_gaussian", "diagonal_gaussian"))
            curve = [apart(a, b) for a, b in zip(full, diagonal, strict=True)]
            value = max(curve) if len(curve) == ROUNDS else math.inf
            label = f"rounds of {name}: as diagonal_gaussian at rho {settings['rho']}, alpha {settings['alpha']}"
            yield check(label, GROUP, "full_gaussian", "float64", value, tolerance, "relative, worst round")
