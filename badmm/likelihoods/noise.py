"""Linear regression with unknown noise: conjugate to the Gaussian-gamma, one round over any clients."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from badmm.checks import Array, column_names, design, positive_number, real_array, row_offset, row_weights
from badmm.families.family import FamilyGeometry, Natural
from badmm.families.structures.gaussian_gamma import HALF_LOG_2PI, GaussianGamma


class GaussianRegression:
    """ℓ(θ, τ) = Σ_i w_i [½ τ (y_i − a_i)² − ½ log τ + ½ log 2π], a_i = x_iᵀθ + o_i, τ the unknown noise precision.

    X (n, d), y (n,), weights w (n,) ≥ 0 (default 1), offset o (n,) (default 0). `freedom` instead of Σ w counts the
    rows in −½ log τ: where d coefficients have a flat prior, which is no member of the family, all clients' add up to
    their rows less d, and the posterior has the residual freedom of least squares. For the family `gaussian_gamma`, in
    whose μ E[ℓ] is linear: ∇_μ E[ℓ] = (−XᵀW(y − o), −XᵀWX, −½ Σ w, −½ (y − o)ᵀW(y − o)). Raises `ValueError` for shapes
    that do not match, negative weights, what is not finite.
    """

    def __init__(
        self,
        X: ArrayLike,
        y: ArrayLike,
        weights: ArrayLike | None = None,
        offset: ArrayLike | None = None,
        freedom: float | None = None,
    ) -> None:
        self.y = real_array(y, "y", 1)
        n = len(self.y)
        self.X, self.columns = design(X, n), column_names(X)
        self.dim = self.X.shape[1]
        self.weights, self.offset = row_weights(weights, n), row_offset(offset, (n,))
        self._target = self.y if self.offset is None else self.y - self.offset
        self._w = np.ones(n) if self.weights is None else self.weights
        self._count = float(np.sum(self._w)) if freedom is None else positive_number(freedom, "freedom")
        self._gram = (self.X.T * self._w) @ self.X

    def constant_natural_gradient(self, family: FamilyGeometry) -> Natural | None:
        """∇_μ E[ℓ], where the statistics of the loss are the family's."""
        linear, square = self._sums()
        return family.linear(
            {
                "tau*theta": -linear,
                "tau*theta*theta.T": 0.5 * self._gram,
                "log(tau)": np.array([-0.5 * self._count]),
                "tau": np.array([0.5 * square]),
            }
        )

    def _sums(self) -> tuple[Array, float]:
        """XᵀW(y − o) and (y − o)ᵀW(y − o)."""
        weighted = self._w * self._target
        return self.X.T @ weighted, float(self._target @ weighted)

    def natural_gradient(self, posterior: GaussianGamma) -> Natural:
        """∇_μ E[ℓ]."""
        linear, square = self._sums()
        return -linear, -self._gram, np.array([-0.5 * self._count]), np.array([-0.5 * square])

    def expected_loss(self, posterior: GaussianGamma) -> float:
        """E[ℓ] in nats, by residuals at the mean: E[τ(y − a)²] = τ̄ (y − xᵀm − o)² + xᵀS⁻¹x."""
        q = posterior
        residual = self._target - self.X @ q.mean
        squares = q.shape / q.rate * float(residual @ (self._w * residual)) + q.operator.trace(self._gram)
        count, log_tau = float(np.sum(self._w)), float(q.noise_precision.expected("log(theta)")[0])
        return 0.5 * squares + count * HALF_LOG_2PI - 0.5 * self._count * log_tau
