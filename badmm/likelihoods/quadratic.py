"""Quadratic losses: given by their Hessian, or by a linear regression."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from badmm.checks import Array, design, positive_number, real_array, require
from badmm.families.distributions import Gaussian
from badmm.families.family import Family, Natural
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

    def growth(self, family: Family) -> Array | None:
        """H itself."""
        return self.hessian

    def constant_natural_gradient(self, family: Family) -> Natural | None:
        """(−b, −H) where E[ℓ] is linear in the family's μ."""
        return family.linear({"theta": -self.linear, "theta*theta.T": 0.5 * self.hessian})


class LinearRegression(Quadratic):
    """ℓ(θ) = Σ_i (y_i − x_iᵀθ)² / (2σ²) + ½ n log(2πσ²) with known noise variance σ² (squared units of y).

    X (n, d), y (n,). H = XᵀX/σ², b = Xᵀy/σ². Raises `ValueError` for shapes that do not match and σ² ≤ 0.
    """

    def __init__(self, X: ArrayLike, y: ArrayLike, noise_variance: float) -> None:
        target = real_array(y, "y", 1)
        X_ = design(X, len(target))
        variance = positive_number(noise_variance, "noise_variance")
        constant = 0.5 * (target @ target) / variance + 0.5 * len(target) * np.log(2 * np.pi * variance)
        super().__init__(X_.T @ X_ / variance, X_.T @ target / variance, constant)
        self.X, self.y, self.noise_variance = X_, target, variance
