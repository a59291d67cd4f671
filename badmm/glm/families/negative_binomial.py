"""Counts that vary more than Poisson's, with the logarithm as their link (NB2)."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from scipy.optimize import brentq
from scipy.special import betaln, digamma, xlogy

from badmm.checks import Array
from badmm.glm.families.base import Responses
from badmm.glm.families.poisson import Counts
from badmm.likelihoods import NegativeBinomialRegression
from badmm.likelihoods.base import GaussianLikelihood

LEAST, MOST = 1e-8, 1e8
"""The range of α: below, counts are Poisson's to the digits that a likelihood of 10⁸ rows can tell."""

STIRLING = 1e4
"""A size from which two terms of Stirling's series are exact to 1e-13."""


class NegativeBinomialResponse(Counts):
    """y of mean μ = eᵃ and variance μ + αμ².

    α is found by maximum likelihood in turns with the coefficients, as by `glm.nb` (Venables & Ripley, Modern Applied
    Statistics with S, section 7.4): given means, a site sends its part of the score in α. Expected standard errors of
    the coefficients do not depend on that of α.
    """

    name = "negative_binomial"
    dispersion = "alpha: the variance is mean + alpha mean²"
    by_likelihood = True

    def client(self, X: Array, y: Array, weights: Array, offset: Array, dispersion: float) -> GaussianLikelihood:
        """Negative binomial regression of size 1/α."""
        return NegativeBinomialRegression(X, y, 1.0 / dispersion, weights=weights, offset=offset)

    def next_dispersion(
        self, parts: Iterable[Responses], means: Iterable[Array], dispersion: float, freedom: float
    ) -> float:
        """The α of the largest likelihood at these means, within its range."""

        def score(log_size: float) -> float:
            return sum(_score(s, mu, float(np.exp(log_size))) for s, mu in zip(parts, means, strict=True))

        # from where it was: later turns move it by little
        low = high = -np.log(dispersion)
        step = 0.25
        while score(low) < 0 and low > -np.log(MOST):
            low, step = low - step, 2 * step
        step = 0.25
        while score(high) > 0 and high < -np.log(LEAST):
            high, step = high + step, 2 * step
        low, high = max(low, -np.log(MOST)), min(high, -np.log(LEAST))
        if score(low) <= 0 or score(high) >= 0:
            return MOST if score(low) <= 0 else LEAST
        return float(np.exp(-brentq(score, low, high, xtol=1e-13, rtol=8 * np.finfo(float).eps)))

    def deviances(self, y: Array, mu: Array, dispersion: float) -> Array:
        """2 (y log(y/μ) − (y + 1/α) log((1 + αy)/(1 + αμ)))."""
        ratio = np.log1p(dispersion * y) - np.log1p(dispersion * mu)
        return np.asarray(2.0 * (xlogy(y, y) - xlogy(y, mu) - (y + 1.0 / dispersion) * ratio))

    def log_likelihoods(self, y: Array, mu: Array, dispersion: float) -> Array:
        """log Γ(y + r) − log Γ(r) − log y! + y log(μ/r) − (y + r) log(1 + μ/r), r = 1/α."""
        r = 1.0 / dispersion
        # Γ(y + r)/(Γ(r) y!) = 1/(y B(y, r)): logarithms of large Γ would cancel
        some = np.maximum(y, 1.0)
        constant = np.where(y > 0, -betaln(some, r) - np.log(some), 0.0)
        return np.asarray(constant + xlogy(y, mu / r) - (y + r) * np.log1p(mu / r))

    def expected_curvature(self, mu: Array, dispersion: float) -> Array:
        """μ/(1 + αμ)."""
        return mu / (1.0 + dispersion * mu)


def _score(part: Responses, mu: Array, r: float) -> float:
    """r d/dr of Σ w log density; its terms are of the order of their sum at a large r too."""
    y = part.y
    change = (y - mu) / (r + mu)
    slope = np.log1p(change) - change + _digamma_less_log(y, r)
    return float(r * (part.weights @ slope))


def _digamma_less_log(y: Array, r: float) -> Array:
    """[ψ(y + r) − log(y + r)] − [ψ(r) − log r]; for a large r by Stirling's series."""
    if r < STIRLING:
        return np.asarray(digamma(y + r) - np.log(y + r) - digamma(r) + np.log(r))
    product = r * (y + r)
    return np.asarray(0.5 * y / product * (1.0 + (2.0 * r + y) / (6.0 * product)))
