"""Two coordinates of the exact posterior and of every family's approximation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from badmm.checks import Array
from badmm.demo import exact
from badmm.demo.problems import DemoProblem
from badmm.experiments.plots import style as plots

Moments = tuple[Array, Array]
"""Mean (2,) and covariance (2, 2)."""

DRAWS = 20_000


@dataclass(frozen=True)
class CoordinatePair:
    """Moments of two coordinates under the exact posterior and each family's; draws if the exact one was sampled."""

    title: str
    names: tuple[str, str]
    exact: Moments
    families: Mapping[str, Moments]
    draws: Array | None = None


def pair_of(problem: DemoProblem, posteriors: Mapping[str, Any], seed: int) -> CoordinatePair:
    """Return the two most correlated coordinates of the full posterior in all `posteriors`, by short family name."""
    full = posteriors["full"]
    chosen = list(plots.most_correlated(full.covariance))
    moments = {
        name: (posterior.mean[chosen], posterior.covariance[np.ix_(chosen, chosen)])
        for name, posterior in posteriors.items()
    }
    X, y, precision = problem.train_X, problem.train_y, problem.prior_precision
    names = (problem.features[chosen[0]], problem.features[chosen[1]])
    if problem.noise_variance is not None:
        mean, matrix = exact.linear_posterior(X, y, problem.noise_variance, precision)
        truth = (mean[chosen], np.asarray(np.linalg.inv(matrix), dtype=np.float64)[np.ix_(chosen, chosen)])
        return CoordinatePair(f"{problem.title}: exact in closed form", names, truth, moments)
    draws = exact.sample(exact.logistic_log_posterior(X, y, precision), full.mean, full.precision, DRAWS, seed)[
        :, chosen
    ]
    return CoordinatePair(
        f"{problem.title}: exact by {DRAWS:,} draws",
        names,
        (draws.mean(axis=0), np.asarray(np.cov(draws.T), dtype=np.float64)),
        moments,
        draws[:: DRAWS // 2000],
    )
