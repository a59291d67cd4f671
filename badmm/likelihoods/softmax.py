"""Softmax regression: C linear predictors a point, so that no one-dimensional projection carries the loss."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import log_softmax

from badmm import checks
from badmm.checks import Array
from badmm.families.distributions import Gaussian
from badmm.likelihoods.base import Expectation, Expected, GaussianLikelihood


class SoftmaxRegression(GaussianLikelihood):
    """ℓ(θ) = −Σ_i w_i log softmax(x_iᵀΘ + o_i)_{y_i}; X (n, p), y (n,) in 0..C−1, Θ (p, C), θ = Θ flattened row-major
    (p·C,), weights w (n,) ≥ 0 (default 1), offset o (n, C) (default 0). With a reference class its column is 0 and no
    part of θ: Θ (p, C − 1).

    `auto` is the delta method: ∇ℓ and ∇²ℓ at the mean, E[ℓ] taken as ℓ(m). `monte_carlo` averages over fixed draws;
    `quadrature` is refused. Raises `ValueError` for labels out of range, fewer than 2 classes, a reference that
    is none of them and an X that is not two-dimensional and finite.
    """

    def __init__(
        self,
        X: ArrayLike,
        y: ArrayLike,
        num_classes: int,
        weights: ArrayLike | None = None,
        offset: ArrayLike | None = None,
        reference: int | None = None,
    ) -> None:
        self.num_classes = checks.positive_integer(num_classes, "num_classes")
        if self.num_classes < 2:
            raise ValueError(f"num_classes: expected at least 2, got {num_classes}")
        self.X, self.columns = checks.design(X), checks.column_names(X)
        self.y = checks.labels(y, len(self.X), self.num_classes)
        self._one_hot: Array = (self.y[:, None] == np.arange(self.num_classes)).astype(np.float64)
        n, features = self.X.shape
        self.weights, self.offset = checks.row_weights(weights, n), checks.row_offset(offset, (n, self.num_classes))
        self._row_weights = np.ones(n) if self.weights is None else self.weights
        if reference is not None and reference not in range(self.num_classes):
            raise ValueError(f"reference: expected a class in 0..{self.num_classes - 1} or None, got {reference!r:.80}")
        self._columns = [c for c in range(self.num_classes) if c != reference]
        self.dim = features * len(self._columns)

    @property
    def at_mean(self) -> bool:
        """Under `auto` and `delta`."""
        return self._mode != "monte_carlo"

    def _accepts(self, expectation: Expectation) -> None:
        if expectation == "quadrature":
            raise ValueError(
                "expectation: expected auto, delta or monte_carlo for SoftmaxRegression (its loss has no "
                "one-dimensional projection), got 'quadrature'"
            )

    def _probabilities(self, posterior: Gaussian) -> tuple[float, Array]:
        """(mean loss over the draws, probabilities (draws, n, C)); one draw at the mean under the delta method."""
        draws = posterior.transform(self.noise) if self._mode == "monte_carlo" else posterior.mean[None]
        columns = draws.reshape(len(draws), -1, len(self._columns))
        logits = np.zeros((len(draws), len(self.X), self.num_classes))
        logits[..., self._columns] = np.einsum("np,kpc->knc", self.X, columns, optimize=True)
        logits = logits if self.offset is None else logits + self.offset
        log_probability = log_softmax(logits, axis=-1)
        value = -float(np.sum(self._row_weights * np.sum(log_probability * self._one_hot, axis=-1))) / len(draws)
        return value, np.exp(log_probability)

    def gradient(self, posterior: Gaussian) -> tuple[float, Array]:
        """(E[ℓ], E[∇ℓ] (d,))."""
        value, probability = self._probabilities(posterior)
        return value, self._gradient(probability)

    def expectations(self, posterior: Gaussian) -> Expected:
        """(E[ℓ], E[∇ℓ] (d,), E[∇²ℓ]): a vector (d,) under a vector precision, else a matrix (d, d)."""
        if posterior.whole_hessian:
            return self.curvature(posterior)
        value, probability = self._probabilities(posterior)
        gradient, probability = self._gradient(probability), probability[..., self._columns]
        weight = np.mean(probability * (1.0 - probability), axis=0) * self._row_weights[:, None]
        diagonal = (self.X * self.X).T @ weight
        return value, gradient, diagonal.ravel()

    def curvature(self, posterior: Gaussian) -> Expected:
        """As `expectations`, with the whole Hessian (d, d); blocks Σ_i x_i x_iᵀ (p_c δ_{cc'} − p_c p_{c'})."""
        value, probability = self._probabilities(posterior)
        gradient, probability = self._gradient(probability), probability[..., self._columns]
        p, C = self.X.shape[1], len(self._columns)
        blocks = np.empty((p, C, p, C))
        for c in range(C):
            for other in range(c, C):
                product = probability[..., c] * ((c == other) - probability[..., other])
                block = self.X.T @ ((np.mean(product, axis=0) * self._row_weights)[:, None] * self.X)
                blocks[:, c, :, other] = blocks[:, other, :, c] = 0.5 * (block + block.T)
        return value, gradient, blocks.reshape(p * C, p * C)

    def _gradient(self, probability: Array) -> Array:
        error = (np.mean(probability, axis=0) - self._one_hot)[:, self._columns]
        return np.asarray(self.X.T @ (error * self._row_weights[:, None])).ravel()
