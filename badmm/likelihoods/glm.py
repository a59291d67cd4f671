"""Losses that see θ only through a = xᵀθ: logistic and Poisson regression."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit, gammaln

from badmm import checks
from badmm.checks import Array
from badmm.families.distributions import Gaussian
from badmm.likelihoods.base import Expectation, Expected, GaussianLikelihood
from badmm.likelihoods.expectations import Moments, exponential_moments, softplus, softplus_moments


class GeneralizedLinear(GaussianLikelihood):
    """ℓ(θ) = Σ_i f_i(x_iᵀθ), X (n, d).

    E[∇ℓ] = Xᵀ E[f′], E[∇²ℓ] = Xᵀ diag(E[f″]) X with a_i ~ N(x_iᵀm, x_iᵀS⁻¹x_i). `auto` and `quadrature` integrate
    over a_i, `delta` takes a_i = x_iᵀm (E[ℓ] is then ℓ(m)), `monte_carlo` averages over fixed draws of θ.
    """

    X: Array

    @abstractmethod
    def _at(self, a: Array) -> Moments:
        """f, f′, f″ at predictors a (..., n)."""

    @abstractmethod
    def _expected(self, center: Array, variance: Array) -> Moments:
        """E[f], E[f′], E[f″] for a ~ N(center, variance)."""

    def _moments(self, posterior: Gaussian) -> Moments:
        if self._mode == "monte_carlo":
            draws = self._at(posterior.transform(self.noise) @ self.X.T)
            return Moments(*(np.mean(part, axis=0) for part in draws))
        center = self.X @ posterior.mean
        if self._mode == "delta":
            return self._at(center)
        return self._expected(center, posterior.predictor_variance(self.X))

    def expectations(self, posterior: Gaussian) -> Expected:
        """(E[ℓ], E[∇ℓ] (d,), E[∇²ℓ]): a vector (d,) under a vector precision, else a matrix (d, d)."""
        # an overflowing loss is the caller's to refuse
        with np.errstate(over="ignore", invalid="ignore"):
            value, slope, weight = self._moments(posterior)
            hessian = self._gram(weight) if posterior.whole_hessian else (self.X * self.X).T @ weight
            return float(np.sum(value)), self.X.T @ slope, hessian

    def curvature(self, posterior: Gaussian) -> Expected:
        """As `expectations`, with the whole Hessian (d, d) under every precision."""
        with np.errstate(over="ignore", invalid="ignore"):
            value, slope, weight = self._moments(posterior)
            return float(np.sum(value)), self.X.T @ slope, self._gram(weight)

    def _gram(self, weight: Array) -> Array:
        # (√w X)ᵀ(√w X) is symmetric to the last bit
        half = self.X * np.sqrt(weight)[:, None]
        return half.T @ half


class LogisticRegression(GeneralizedLinear):
    """ℓ(θ) = Σ_i log(1 + e^{a_i}) − y_i a_i, a = Xθ, y_i ∈ {0, 1}; X (n, d), y (n,).

    Raises `ValueError` for other labels, X that is not two-dimensional and finite, and lengths that differ.
    """

    def __init__(self, X: ArrayLike, y: ArrayLike) -> None:
        self.X = checks.design(X)
        self.y: Array = checks.labels(y, len(self.X), 2).astype(np.float64)
        self.dim = self.X.shape[1]

    def _at(self, a: Array) -> Moments:
        # log(1+eᵃ) − y a = log(1+e^{−|a|}) + max(±a, 0): no cancellation at large |a|
        return Moments(softplus(np.where(self.y > 0.5, -a, a)), expit(a) - self.y, expit(a) * expit(-a))

    def _expected(self, center: Array, variance: Array) -> Moments:
        # the loss of y = 1 at a is that of y = 0 at −a, and neither cancels
        sign = 1.0 - 2.0 * self.y
        value, slope, curvature = softplus_moments(sign * center, variance)
        return Moments(value, sign * slope, curvature)


class PoissonRegression(GeneralizedLinear):
    """ℓ(θ) = Σ_i e^{a_i} − y_i a_i + log y_i!, a = Xθ, y_i a count; X (n, d), y (n,).

    E[e^a] = exp(xᵀm + ½ xᵀS⁻¹x). Raises `ValueError` for y that are not non-negative whole numbers.
    """

    def __init__(self, X: ArrayLike, y: ArrayLike) -> None:
        self.X = checks.design(X)
        self.y: Array = checks.counts(y, "y")
        if self.y.shape != (len(self.X),):
            raise ValueError(f"y: expected shape ({len(self.X)},) to match X, got {self.y.shape}")
        self.dim = self.X.shape[1]
        self._log_factorial: Array = gammaln(self.y + 1.0)

    def _loss(self, center: Array, rate: Moments) -> Moments:
        value, slope, curvature = rate
        return Moments(value - self.y * center + self._log_factorial, slope - self.y, curvature)

    def _at(self, a: Array) -> Moments:
        return self._loss(a, exponential_moments(a, np.zeros(())))

    def _expected(self, center: Array, variance: Array) -> Moments:
        return self._loss(center, exponential_moments(center, variance))


__all__ = ["Expectation", "GeneralizedLinear", "LogisticRegression", "PoissonRegression"]
