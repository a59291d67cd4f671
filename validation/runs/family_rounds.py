"""Agreement of full and diagonal Gaussians in whole runs of the solver.

With losses that separate over coordinates the precision of the full Gaussian stays diagonal, so both families agree
round by round in the server's natural parameter: to 1e-13 of the largest entry on quadratics with diagonal Hessians, to
1e-11 on logistic and Poisson regression with one feature per row (each client is solved to 1e-12).
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
    """Return a design matrix with one nonzero feature per row in which every feature occurs."""
    columns = np.concatenate([np.arange(DIMENSION), rng.integers(0, DIMENSION, rows - DIMENSION)])
    design = np.zeros((rows, DIMENSION))
    design[np.arange(rows), columns] = rng.uniform(0.5, 1.5, rows) * rng.choice((-1.0, 1.0), rows)
    return design


def problems() -> dict[str, tuple[list[Any], float]]:
    """Return clients with separable losses, and the tolerance of the agreement, by name."""
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
        "logistic regression, one feature per row": (logistic, 1e-11),
        "Poisson regression, one feature per row": (poisson, 1e-11),
    }


def path(family: str, clients: Sequence[Any], settings: dict[str, Any]) -> list[Slots]:
    """Return the server's natural parameter after every round."""
    import badmm

    precision = np.eye(DIMENSION) if family == "full_gaussian" else np.ones(DIMENSION)
    prior = badmm.Gaussian(np.full(DIMENSION, 0.25), 1.5 * precision)
    found: list[Slots] = []
    note: Callable[[Any], None] = lambda state: found.append(tuple(np.array(slot) for slot in state.natural))  # noqa: E731
    badmm.solve(
        clients, family=family, prior=prior, rounds=ROUNDS, tol=0.0, callbacks=(note,), client_tol=1e-12, **settings
    )
    return found


def difference(full: Slots, diagonal: Slots) -> float:
    """Return the largest difference, off-diagonal entries included, relative to the slot's largest entry."""
    pairs = ((full[0], diagonal[0]), (full[1], np.diag(diagonal[1])))
    return max(float(np.max(np.abs(a - b)) / np.max(np.abs(b))) for a, b in pairs)


def checks() -> Iterator[Check]:
    """Yield one check per problem and setting."""
    for name, (clients, tolerance) in problems().items():
        for settings in SETTINGS:
            full, diagonal = (path(family, clients, settings) for family in ("full_gaussian", "diagonal_gaussian"))
            curve = [difference(a, b) for a, b in zip(full, diagonal, strict=True)]
            value = max(curve) if len(curve) == ROUNDS else math.inf
            label = f"rounds of {name}: as diagonal_gaussian at rho {settings['rho']}, alpha {settings['alpha']}"
            yield check(label, GROUP, "full_gaussian", "float64", value, tolerance, "relative, worst round")
