"""Quadratic losses: given by their Hessian, or by a linear regression."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from badmm.checks import (
    Array,
    column_names,
    design,
    positive_number,
    real_array,
    require,
    row_offset,
    row_weights,
)
from badmm.families.distributions import Gaussian
from badmm.families.family import FamilyGeometry, Natural
from badmm.likelihoods.base import Expected, GaussianLikelihood


class Quadratic(GaussianLikelihood):
    """ℓ(θ) = ½ θᵀHθ − bᵀθ + c, H (d, d) symmetric, b (d,); exact under every family and in every mode.

    Under a full Gaussian E[ℓ] is linear in μ with ∇_μ E[ℓ] = (−b, −H); under a diagonal one where H is diagonal.
    Raises `ValueError` for an H that is not symmetric or does not fit b.
    """

    def __init__(self, hessian: ArrayLike, linear: ArrayLike, constant: float = 0.0) -> None:
        H, b = real_array(hessian, "hessian", 2), real_array(linear, "linear", 1)
        if H.shape != (len(b), len(b)):
            raise ValueError(f"hessian: expected shape {(len(b), len(b))} to match linear, got {H.shape}")
        require(np.abs(H - H.T) <= 1e-10 * np.abs(H).max(), H, "hessian", "a symmetric matrix")
        self.hessian, self.linear, self.constant = 0.5 * (H + H.T), b, float(constant)
        self.dim = len(b)

    def curvature(self, posterior: Gaussian) -> Expected:
        """(E[ℓ], H m − b, H) with E[ℓ] = ½ mᵀHm − bᵀm + ½ tr(H S⁻¹) + c; without the trace under `delta`."""
        m, H = posterior.mean, self.hessian
        product = H @ m
        value = float(m @ (0.5 * product - self.linear)) + self.constant
        if self._mode != "delta":
            value += 0.5 * posterior.operator.trace(posterior.operator.own(H))
        return value, product - self.linear, H

    def expectations(self, posterior: Gaussian) -> Expected:
        """As `curvature`; under a vector precision the Hessian's diagonal."""
        value, gradient, H = self.curvature(posterior)
        return value, gradient, H if posterior.whole_hessian else np.diag(H).copy()

    def growth(self, family: FamilyGeometry) -> Array | None:
        """H itself."""
        return self.hessian

    def constant_natural_gradient(self, family: FamilyGeometry) -> Natural | None:
        """(−b, −H) where E[ℓ] is linear in the family's μ."""
        return family.linear({"theta": -self.linear, "theta*theta.T": 0.5 * self.hessian})


class LinearRegression(Quadratic):
    """ℓ(θ) = Σ_i w_i [(y_i − a_i)² / (2σ²) + ½ log(2πσ²)], a_i = x_iᵀθ + o_i, σ² the known noise variance.

    X (n, d), y (n,), weights w (n,) ≥ 0 (default 1), offset o (n,) (default 0), σ² in units of y². H = XᵀWX/σ²,
    b = XᵀW(y − o)/σ². Raises `ValueError` for shapes that do not match, σ² ≤ 0, negative weights, what is not finite.
    """

    def __init__(
        self,
        X: ArrayLike,
        y: ArrayLike,
        noise_variance: float,
        weights: ArrayLike | None = None,
        offset: ArrayLike | None = None,
    ) -> None:
        target = real_array(y, "y", 1)
        X_, n = design(X, len(target)), len(target)
        variance = positive_number(noise_variance, "noise_variance")
        self.weights, self.offset = row_weights(weights, n), row_offset(offset, (n,))
        shifted = target if self.offset is None else target - self.offset
        total = float(n) if self.weights is None else float(np.sum(self.weights))
        weighted = X_ if self.weights is None else X_ * self.weights[:, None]
        squares = shifted @ shifted if self.weights is None else shifted @ (self.weights * shifted)
        constant = 0.5 * squares / variance + 0.5 * total * np.log(2 * np.pi * variance)
        super().__init__(X_.T @ weighted / variance, weighted.T @ shifted / variance, constant)
        self.X, self.y, self.noise_variance = X_, target, variance
        self.columns = column_names(X)
