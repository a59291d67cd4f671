"""Positive responses whose deviation grows with their mean, with the logarithm as their link."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from badmm.checks import Array
from badmm.glm.families.base import ResponseFamily, Responses
from badmm.glm.families.poisson import log_rate
from badmm.likelihoods import GammaRegression
from badmm.likelihoods.base import GaussianLikelihood


class GammaResponse(ResponseFamily):
    """y of mean μ = eᵃ and variance φμ²; φ is Pearson's."""

    name, link, ratio = "gamma", "log", "ratio of means"
    dispersion = "variance over the squared mean"

    def support(self, y: Array) -> tuple[NDArray[np.bool_], str]:
        """A positive number."""
        return (y > 0) & np.isfinite(y), "positive numbers"

    def client(self, X: Array, y: Array, weights: Array, offset: Array, dispersion: float) -> GaussianLikelihood:
        """Gamma regression of shape 1/φ."""
        return GammaRegression(X, y, 1.0 / dispersion, weights=weights, offset=offset)

    def start(self, parts: Iterable[Responses]) -> float:
        """The logarithm of the pooled mean over that of e^offset."""
        return log_rate(parts)

    def mean(self, a: Array) -> Array:
        """eᵃ."""
        return np.exp(a)

    def variance(self, mu: Array) -> Array:
        """μ²."""
        return np.square(mu)

    def deviances(self, y: Array, mu: Array, dispersion: float) -> Array:
        """2 ((y − μ)/μ − log(y/μ))."""
        return np.asarray(2.0 * ((y - mu) / mu - np.log(y / mu)))

    def log_likelihoods(self, y: Array, mu: Array, dispersion: float) -> Array:
        """(log(y/(φμ)) − y/μ)/φ − log y − log Γ(1/φ)."""
        shape = 1.0 / dispersion
        return np.asarray(shape * (np.log(shape * y / mu) - y / mu) - np.log(y) - gammaln(shape))

    def expected_curvature(self, mu: Array, dispersion: float) -> Array:
        """1/φ."""
        return np.full_like(mu, 1.0 / dispersion)
