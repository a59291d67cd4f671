"""Losses that see θ only through a = xᵀθ + offset: logistic and Poisson regression."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg.blas import dsyrk
from scipy.special import expit, gammaln

from badmm import checks
from badmm.checks import Array
from badmm.families.distributions import Gaussian
from badmm.likelihoods.base import Expectation, Expected, GaussianLikelihood
from badmm.likelihoods.expectations import Moments, exponential_moments, softplus, softplus_moments


class GeneralizedLinear(GaussianLikelihood):
    """ℓ(θ) = Σ_i w_i f_i(a_i), a_i = x_iᵀθ + o_i; X (n, d), weights w (n,) ≥ 0 (default 1), offset o (n,) (default 0).

    E[∇ℓ] = Xᵀ w E[f′], E[∇²ℓ] = Xᵀ diag(w E[f″]) X with a_i ~ N(x_iᵀm + o_i, x_iᵀS⁻¹x_i). `auto` and `quadrature`
    integrate over a_i, `delta` takes a_i = x_iᵀm + o_i (E[ℓ] is then ℓ(m)), `monte_carlo` averages over fixed draws
    of θ. A weight of 2 is a row given twice, a weight of 0 a row left out. Raises `ValueError` for X that is not
    two-dimensional and finite, weights that are negative or not finite, offsets that are not finite, other lengths.
    """

    X: Array
    y: Array
    weights: Array | None
    offset: Array | None
    columns: tuple[str, ...] | None
    """Names of the features where X is a data frame; `badmm.solve` refuses clients whose names differ."""

    def __init__(
        self, X: ArrayLike, y: ArrayLike, weights: ArrayLike | None = None, offset: ArrayLike | None = None
    ) -> None:
        self.X, self.columns = checks.design(X), checks.column_names(X)
        n, self.dim = self.X.shape
        self.y = self._responses(y, n)
        self.weights, self.offset = checks.row_weights(weights, n), checks.row_offset(offset, (n,))

    @abstractmethod
    def _responses(self, y: ArrayLike, n: int) -> Array:
        """y (n,), checked to lie in the support."""

    @abstractmethod
    def _at(self, a: Array) -> Moments:
        """f, f′, f″ at predictors a (..., n)."""

    @abstractmethod
    def _expected(self, center: Array, variance: Array) -> Moments:
        """E[f], E[f′], E[f″] for a ~ N(center, variance)."""

    def _moments(self, posterior: Gaussian) -> Moments:
        moments = self._unweighted(posterior)
        if self.weights is None:
            return moments
        # 0 · ∞: a row of weight 0 adds nothing even where its loss overflows
        return Moments(*(np.where(self.weights > 0, self.weights * part, 0.0) for part in moments))

    def _unweighted(self, posterior: Gaussian) -> Moments:
        offset = 0.0 if self.offset is None else self.offset
        if self._mode == "monte_carlo":
            draws = self._at(posterior.transform(self.noise) @ self.X.T + offset)
            return Moments(*(np.mean(part, axis=0) for part in draws))
        center = self.X @ posterior.mean + offset
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
        # (√w X)ᵀ(√w X): half the operations of a product, and symmetric to the last bit
        half = self.X * np.sqrt(weight)[:, None]
        lower = dsyrk(1.0, half.T, lower=1)
        return np.asarray(lower + np.tril(lower, -1).T)


class LogisticRegression(GeneralizedLinear):
    """f(a) = log(1 + eᵃ) − y a, y ∈ {0, 1}; see `GeneralizedLinear`."""

    def _responses(self, y: ArrayLike, n: int) -> Array:
        return checks.labels(y, n, 2).astype(np.float64)

    def _at(self, a: Array) -> Moments:
        # log(1+eᵃ) − y a = log(1+e^{−|a|}) + max(±a, 0): no cancellation at large |a|
        return Moments(softplus(np.where(self.y > 0.5, -a, a)), expit(a) - self.y, expit(a) * expit(-a))

    def _expected(self, center: Array, variance: Array) -> Moments:
        # the loss of y = 1 at a is that of y = 0 at −a, and neither cancels
        sign = 1.0 - 2.0 * self.y
        value, slope, curvature = softplus_moments(sign * center, variance)
        return Moments(value, sign * slope, curvature)


class PoissonRegression(GeneralizedLinear):
    """f(a) = eᵃ − y a + log y!, y a count, E[eᵃ] in closed form; the offset of an exposure is its logarithm.

    See `GeneralizedLinear`.
    """

    def _responses(self, y: ArrayLike, n: int) -> Array:
        counts = checks.counts(y, "y")
        if counts.shape != (n,):
            raise ValueError(f"y: expected shape ({n},) to match X, got {counts.shape}")
        self._log_factorial: Array = gammaln(counts + 1.0)
        return counts

    def _loss(self, center: Array, rate: Moments) -> Moments:
        value, slope, curvature = rate
        return Moments(value - self.y * center + self._log_factorial, slope - self.y, curvature)

    def _at(self, a: Array) -> Moments:
        return self._loss(a, exponential_moments(a, np.zeros(())))

    def _expected(self, center: Array, variance: Array) -> Moments:
        return self._loss(center, exponential_moments(center, variance))


__all__ = ["Expectation", "GeneralizedLinear", "LogisticRegression", "PoissonRegression"]
