"""Counts with the logarithm as their link."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, logsumexp, xlogy

from badmm.checks import Array
from badmm.glm.families.base import ResponseFamily, Responses
from badmm.likelihoods import PoissonRegression
from badmm.likelihoods.base import GaussianLikelihood


def log_rate(parts: Iterable[Responses], least: float = 0.0) -> float:
    """log Σ w y − log Σ w e^offset, Σ w y taken as `least` at least."""
    events = float(sum(s.weights @ s.y for s in parts))
    return float(np.log(max(events, least)) - logsumexp([logsumexp(s.offset, b=s.weights) for s in parts if len(s.y)]))


class Counts(ResponseFamily):
    """Whole numbers of mean eᵃ."""

    link, ratio = "log", "rate ratio"
    counts_events = True

    def support(self, y: Array) -> tuple[NDArray[np.bool_], str]:
        """A whole number of at least 0."""
        return (y >= 0) & (y == np.floor(y)), "non-negative whole numbers"

    def start(self, parts: Iterable[Responses]) -> float:
        """The logarithm of the pooled rate, that of half an event at least."""
        return log_rate(parts, 0.5)

    def mean(self, a: Array) -> Array:
        """eᵃ."""
        return np.exp(a)

    def never_falls(self, y: Array, move: Array, slack: float) -> bool:
        """a falls where y = 0 and stays elsewhere."""
        return bool((move <= slack).all() and (np.abs(move[y > 0]) <= slack).all())


class PoissonResponse(Counts):
    """y ~ Poisson(eᵃ)."""

    name = "poisson"

    def client(self, X: Array, y: Array, weights: Array, offset: Array, dispersion: float) -> GaussianLikelihood:
        """Poisson regression."""
        return PoissonRegression(X, y, weights=weights, offset=offset)

    def deviances(self, y: Array, mu: Array, dispersion: float) -> Array:
        """2 (y log(y/μ) − y + μ)."""
        return np.asarray(2.0 * (xlogy(y, y) - xlogy(y, mu) - y + mu))

    def log_likelihoods(self, y: Array, mu: Array, dispersion: float) -> Array:
        """y log μ − μ − log y!."""
        return np.asarray(xlogy(y, mu) - mu - gammaln(y + 1.0))
