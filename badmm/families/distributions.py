"""The distributions a user meets: priors and posteriors. Immutable; mean and precision, never second moments."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg.blas import dtrmm
from scipy.linalg.lapack import dtrtri

from badmm.checks import Array, cholesky_factor, real_array, require


class Gaussian:
    """N(mean, precision⁻¹) over θ of shape (d,).

    `precision` is a positive scalar (isotropic), a positive vector (d,) (diagonal) or a symmetric positive definite
    matrix (d, d) (full); its number of axes says the family. A scalar mean is repeated where the precision has a
    length. Raises `ValueError` for anything else. Units: mean as θ, precision 1/θ².
    """

    def __init__(self, mean: ArrayLike, precision: ArrayLike) -> None:
        m = real_array(mean, "mean", (0, 1))
        s = real_array(precision, "precision", (0, 1, 2))
        dim = len(m) if m.ndim else (len(s) if s.ndim else 1)
        if s.ndim and s.shape != (dim,) * s.ndim:
            expected = " or ".join(str((dim,) * axes) for axes in (1, 2))
            raise ValueError(f"precision: expected a scalar or shape {expected} to match the mean, got {s.shape}")
        if s.ndim < 2:
            require(s > 0, s, "precision", "positive")
        self.mean: Array = np.broadcast_to(m, (dim,)).copy()
        self.precision: Array = s
        if s.ndim == 2:
            asymmetry = np.abs(s - s.T)
            require(asymmetry <= 1e-10 * np.abs(s).max(), s, "precision", "a symmetric matrix")
            _ = self.cholesky

    @classmethod
    def _trusted(cls, mean: Array, precision: Array) -> Gaussian:
        """A Gaussian from arrays that the kernels have already checked."""
        self = cls.__new__(cls)
        self.mean, self.precision = mean, precision
        return self

    @property
    def dim(self) -> int:
        """d, the length of θ."""
        return len(self.mean)

    @property
    def family(self) -> str:
        """The family that this precision belongs to."""
        return ("isotropic_gaussian", "diagonal_gaussian", "full_gaussian")[self.precision.ndim]

    @cached_property
    def cholesky(self) -> Array:
        """Lower L with S = LLᵀ, shape (d, d), for a matrix precision; raises `ValueError` where S is not definite."""
        factor = cholesky_factor(self.precision)
        if factor is None:
            smallest = float(np.linalg.eigvalsh(self.precision)[0])
            raise ValueError(f"precision: expected a positive definite matrix, got smallest eigenvalue {smallest:.6g}")
        return factor

    @cached_property
    def inverse_cholesky(self) -> Array:
        """L⁻¹ (d, d), lower. One inverse for many right-hand sides: BLAS's threaded solves are slow at small sizes."""
        inverse, info = dtrtri(self.cholesky, lower=1)
        if info:
            raise ValueError(f"precision: expected a positive definite matrix, got a zero pivot at index {info - 1}")
        return np.asarray(inverse)

    @property
    def variance(self) -> Array:
        """Marginal variances (d,)."""
        if self.precision.ndim == 2:
            return np.asarray(np.sum(self.inverse_cholesky**2, axis=0))
        return np.asarray(np.full(self.dim, 1.0) / self.precision)

    @cached_property
    def covariance(self) -> Array:
        """S⁻¹ as a matrix (d, d)."""
        if self.precision.ndim == 2:
            return np.asarray(self.inverse_cholesky.T @ self.inverse_cholesky)
        return np.diag(self.variance)

    def predictor_variance(self, X: Array) -> Array:
        """xᵀS⁻¹x (n,) for the rows of X (n, d)."""
        if self.precision.ndim == 2:
            # the triangle halves the operations; X.T is in LAPACK's order
            half = dtrmm(1.0, self.inverse_cholesky, X.T, lower=1)
            return np.asarray(np.einsum("ij,ij->j", half, half))
        if self.precision.ndim == 1:
            return np.asarray((X * X) @ (1.0 / self.precision))
        return np.asarray(np.einsum("ij,ij->i", X, X) / self.precision)

    def transform(self, noise: Array) -> Array:
        """m + S^{−1/2} z (n, d) for standard normal rows z of `noise` (n, d); L⁻ᵀ z for a matrix precision."""
        if self.precision.ndim == 2:
            return np.asarray(self.mean + noise @ self.inverse_cholesky)
        return np.asarray(self.mean + noise / np.sqrt(self.precision))

    def sample(self, count: int, seed: int = 0) -> Array:
        """`count` draws (count, d) with PCG64 under this seed."""
        return self.transform(np.random.default_rng(seed).standard_normal((count, self.dim)))

    def __repr__(self) -> str:
        return f"Gaussian(mean={self.mean!r}, precision={self.precision!r})"


class Gamma:
    """Gamma(shape, rate) over θ > 0, elementwise over P independent coordinates; scalars become arrays (1,).

    Density θ^{shape−1} e^{−rate θ} rate^shape / Γ(shape); mean shape / rate. Raises `ValueError` unless both are
    positive, finite and of one shape.
    """

    family = "gamma"

    def __init__(self, shape: ArrayLike, rate: ArrayLike) -> None:
        a, b = real_array(shape, "shape", (0, 1)), real_array(rate, "rate", (0, 1))
        require(a > 0, a, "shape", "positive")
        require(b > 0, b, "rate", "positive")
        if a.ndim and b.ndim and a.shape != b.shape:
            raise ValueError(f"rate: expected shape {a.shape} to match the shape parameter, got {b.shape}")
        size = max(a.size, b.size)
        self.shape: Array = np.broadcast_to(a, (size,)).copy()
        self.rate: Array = np.broadcast_to(b, (size,)).copy()

    @classmethod
    def _trusted(cls, shape: Array, rate: Array) -> Gamma:
        self = cls.__new__(cls)
        self.shape, self.rate = shape, rate
        return self

    @property
    def dim(self) -> int:
        """P, the number of coordinates."""
        return len(self.shape)

    @property
    def mean(self) -> Array:
        """shape / rate (P,)."""
        return self.shape / self.rate

    @property
    def variance(self) -> Array:
        """shape / rate² (P,)."""
        return self.shape / self.rate**2

    def sample(self, count: int, seed: int = 0) -> Array:
        """`count` draws (count, P) with PCG64 under this seed."""
        return np.random.default_rng(seed).gamma(self.shape, 1.0 / self.rate, (count, self.dim))

    def __repr__(self) -> str:
        return f"Gamma(shape={self.shape!r}, rate={self.rate!r})"


Distribution = Gaussian | Gamma
