"""scikit-learn's estimators over sites: `fit(X, y, sites=...)` tells which rows belong together and stay there.

Each minimises Σ_k ℓ_k + ½ Σ_j precision θ_j² over all sites' rows by federated Newton; without `sites` all rows are one
site's, and the answer is the same.
"""

from __future__ import annotations

import warnings
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.special import expit, softmax
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from badmm.checks import Array, non_negative_number
from badmm.families.distributions import Gaussian
from badmm.glm.coordinates import INTERCEPT, Reparametrisation, spread
from badmm.glm.mode import posterior_mode
from badmm.likelihoods import LinearRegression, LogisticRegression, PoissonRegression, SoftmaxRegression
from badmm.likelihoods.base import GaussianLikelihood


@dataclass(frozen=True)
class _Rows:
    """One site's rows."""

    X: Array
    y: Array
    weights: Array


class _Federated(BaseEstimator):
    """precision: of the coefficients' normal prior around 0 (1/θ²; 0: flat); the intercept's is flat.

    tol: posterior standard deviations. max_rounds: of federated Newton, and of the default method where that goes
    astray.
    """

    def __init__(
        self, precision: float = 1.0, *, fit_intercept: bool = True, tol: float = 1e-8, max_rounds: int = 200
    ) -> None:
        self.precision, self.fit_intercept, self.tol, self.max_rounds = precision, fit_intercept, tol, max_rounds

    @abstractmethod
    def _client(self, X: Array, y: Array, weights: Array) -> GaussianLikelihood:
        """One site's loss."""

    def _design(self, X: Array) -> Array:
        return np.hstack([np.ones((len(X), 1)), X]) if self.fit_intercept else X

    def _solve(self, X: Array, y: Array, sites: ArrayLike | None, sample_weight: ArrayLike | None, width: int) -> Array:
        """θ as (features with the intercept first, width); sets `n_iter_`, `n_sites_` and `posterior_`."""
        weights = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
        parts = [_Rows(self._design(X[rows]), y[rows], weights[rows]) for rows in self._groups(sites, len(X))]
        terms = [INTERCEPT] * self.fit_intercept + [f"column {j}" for j in range(X.shape[1])]
        wanted = np.full(len(terms), non_negative_number(self.precision, "precision"))
        wanted[: int(self.fit_intercept)] = 0.0
        coordinates = Reparametrisation.of(terms, parts, wanted, spread(terms, parts), "X", width)
        prior = coordinates.prior(wanted)
        result = posterior_mode(
            [self._client(coordinates.rows(part.X), part.y, part.weights) for part in parts],
            Gaussian(np.zeros(len(prior)), prior),
            {"tol": self.tol, "rounds": self.max_rounds},
        )
        if not result.converged:
            warnings.warn(f"not converged: {result.reason}", ConvergenceWarning, stacklevel=3)
        self.n_iter_, self.n_sites_, self.posterior_ = result.rounds, len(parts), result.posterior
        return np.asarray(coordinates.outer @ coordinates.matrix(result.posterior.mean))

    @staticmethod
    def _groups(sites: ArrayLike | None, rows: int) -> list[Any]:
        if sites is None:
            return [np.arange(rows)]
        labels = np.asarray(sites)
        if labels.shape != (rows,):
            raise ValueError(f"sites: expected a label per row, shape ({rows},), got {labels.shape}")
        codes, found = pd.factorize(labels)
        if (codes < 0).any():
            raise ValueError(f"sites: expected a label per row, got none in row {int(np.argmin(codes))}")
        return [np.flatnonzero(codes == code) for code in range(len(found))]

    def _split(self, theta: Array) -> tuple[Array, Array]:
        """Coefficients (width, features) and intercepts (width,)."""
        if self.fit_intercept:
            # a shift of all classes' intercepts changes no probability
            return theta[1:].T, theta[0] - (theta[0].mean() if theta.shape[1] > 1 else 0.0)
        return theta.T, np.zeros(theta.shape[1])

    def _predictor(self, X: ArrayLike) -> Array:
        check_is_fitted(self)
        rows = validate_data(self, X, dtype=np.float64, reset=False)
        return np.asarray(rows @ np.atleast_2d(self.coef_).T + self.intercept_)


class FederatedLogisticRegression(ClassifierMixin, _Federated):
    """Logistic regression of two classes, softmax regression of more; `coef_` and `intercept_` as scikit-learn's."""

    def _client(self, X: Array, y: Array, weights: Array) -> GaussianLikelihood:
        if len(self.classes_) == 2:
            return LogisticRegression(X, y, weights=weights)
        return SoftmaxRegression(X, y, len(self.classes_), weights=weights)

    def fit(
        self, X: ArrayLike, y: ArrayLike, sites: ArrayLike | None = None, sample_weight: ArrayLike | None = None
    ) -> Self:
        """Fit to rows X (n, p) with classes y (n,) at sites (n,)."""
        rows, classes = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(classes)
        self.classes_, labels = np.unique(classes, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y: expected at least two classes, got one class, {self.classes_[0]!r}")
        width = 1 if len(self.classes_) == 2 else len(self.classes_)
        theta = self._solve(rows, labels.astype(np.float64), sites, sample_weight, width)
        self.coef_, self.intercept_ = self._split(theta)
        return self

    def decision_function(self, X: ArrayLike) -> Array:
        """The predictor (n,) of the second class, or those of all classes (n, C)."""
        found = self._predictor(X)
        return found[:, 0] if len(self.classes_) == 2 else found

    def predict_proba(self, X: ArrayLike) -> Array:
        """Probabilities (n, C) at the mode."""
        score = self.decision_function(X)
        return np.asarray(np.column_stack([expit(-score), expit(score)]) if score.ndim == 1 else softmax(score, axis=1))

    def predict(self, X: ArrayLike) -> Any:
        """The most probable class (n,)."""
        score = self.decision_function(X)
        return self.classes_[(score > 0).astype(int) if score.ndim == 1 else score.argmax(axis=1)]


class _FederatedRegressor(RegressorMixin, _Federated):
    def fit(
        self, X: ArrayLike, y: ArrayLike, sites: ArrayLike | None = None, sample_weight: ArrayLike | None = None
    ) -> Self:
        """Fit to rows X (n, p) with responses y (n,) at sites (n,)."""
        rows, target = validate_data(self, X, y, dtype=np.float64, y_numeric=True)
        theta = self._solve(rows, np.asarray(target, dtype=np.float64), sites, sample_weight, 1)
        coefficients, intercept = self._split(theta)
        self.coef_, self.intercept_ = coefficients[0], float(intercept[0])
        return self


class FederatedLinearRegression(_FederatedRegressor):
    """Ridge regression with penalty `precision`."""

    def _client(self, X: Array, y: Array, weights: Array) -> GaussianLikelihood:
        return LinearRegression(X, y, 1.0, weights=weights)

    def predict(self, X: ArrayLike) -> Array:
        """E[y] (n,) at the mode."""
        return self._predictor(X)[:, 0]


class FederatedPoissonRegressor(_FederatedRegressor):
    """Poisson regression of counts with the logarithm as its link."""

    def _client(self, X: Array, y: Array, weights: Array) -> GaussianLikelihood:
        return PoissonRegression(X, y, weights=weights)

    def predict(self, X: ArrayLike) -> Array:
        """E[y] (n,) at the mode."""
        return np.exp(self._predictor(X)[:, 0])

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.positive_only = True
        return tags
