"""Gaussian responses with the identity link."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from badmm.checks import Array
from badmm.glm.families.base import ROUNDING, ResponseFamily, Responses, average
from badmm.likelihoods import GaussianRegression, LinearRegression
from badmm.likelihoods.base import GaussianLikelihood


class GaussianResponse(ResponseFamily):
    """y ~ N(a, φ)."""

    name, link = "gaussian", "identity"
    dispersion = "variance of the noise"
    conjugate = GaussianRegression

    def client(self, X: Array, y: Array, weights: Array, offset: Array, dispersion: float) -> GaussianLikelihood:
        """Least squares over 2φ."""
        return LinearRegression(X, y, dispersion, weights=weights, offset=offset)

    def start(self, parts: Iterable[Responses]) -> float:
        """The mean of y − offset."""
        return average(parts, lambda s: s.y - s.offset)

    def mean(self, a: Array) -> Array:
        """a."""
        return a

    def deviances(self, y: Array, mu: Array, dispersion: float) -> Array:
        """(y − μ)²."""
        return np.square(y - mu)

    def log_likelihoods(self, y: Array, mu: Array, dispersion: float) -> Array:
        """−(y − μ)²/(2φ) − ½ log(2πφ)."""
        return np.asarray(-0.5 * (np.square(y - mu) / dispersion + np.log(2 * np.pi * dispersion)))

    def unit(self, parts: Iterable[Responses]) -> float:
        """The pooled variance of y − offset."""
        center = self.start(parts)
        found = average(parts, lambda s: np.square(s.y - s.offset - center))
        return found if found > 0 else 1.0

    def first_dispersion(self, parts: Iterable[Responses]) -> float:
        """The same."""
        return self.unit(parts)

    def least_dispersion(self, parts: Iterable[Responses]) -> float:
        """In the unit of y²."""
        square = average(parts, lambda s: np.square(s.y - s.offset))
        return max(square * ROUNDING**2, float(np.finfo(float).tiny))

    def density_dispersion(self, dispersion: float, deviance: float, rows: float) -> float:
        """That of the largest likelihood, deviance / rows."""
        return deviance / rows
