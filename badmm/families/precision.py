"""Precisions S of a Gaussian as operators: what depends on whether S is a number, a diagonal or a matrix.

An operator may hold an indefinite S (a cavity's): only products and sums are then meaningful, and `is_definite` tells.

The local chart around a precision (`badmm.clients.charts`) is that of the covariance C(I + W + Wᵀ)Cᵀ, C = S^{-1/2}, W
lower triangular within the structure.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property

import numpy as np

from badmm.checks import Array, require


class Precision(ABC):
    """S over θ (d,); `array` holds its entries: a number (), a diagonal (d,), a matrix (d, d), flat blocks (n,)."""

    whole_hessian: bool
    """Whether E[∇²ℓ] is used as a matrix (d, d) under this structure, or its diagonal (d,)."""
    keeps_curvature = False
    """Whether a posterior of this structure can hold a loss's whole curvature."""

    def __init__(self, array: Array, dim: int) -> None:
        self.array, self.dim = array, dim

    @property
    @abstractmethod
    def is_definite(self) -> bool:
        """Whether S is positive definite."""

    def check(self) -> None:
        """Raise `ValueError` where S is not positive definite."""
        require(self.array > 0, self.array, "precision", "positive")

    @abstractmethod
    def like(self, array: Array) -> Precision:
        """Another precision of this structure."""

    @classmethod
    def adopted(cls, other: Precision) -> Precision:
        """The same S in this structure; raises `ValueError` where it cannot hold it."""
        raise NotImplementedError(f"{cls.__name__}: a family of this structure adopts priors by itself")

    @property
    def shown(self) -> Array:
        """What a user sees: a number (), a diagonal (d,) or a matrix (d, d)."""
        return self.array

    @abstractmethod
    def own(self, matrix: Array) -> Array:
        """The part of a symmetric matrix (d, d) that the structure has: its diagonal, or all of it."""

    def own_part(self, value: Array) -> Array:
        """`own` of a matrix (d, d); a diagonal (d,) is its own part already."""
        return self.own(value) if value.shape == (self.dim, self.dim) else value

    def whole(self, own: Array) -> Array:
        """An array of this structure as a diagonal (d,) or a matrix (d, d)."""
        return own

    @abstractmethod
    def times(self, array: Array, vector: Array) -> Array:
        """The product of an array of this structure and a vector (d,)."""

    def matvec(self, vector: Array) -> Array:
        """S v (d,)."""
        return self.times(self.array, vector)

    @abstractmethod
    def plus(self, matrix: Array) -> Array:
        """S + a symmetric matrix (d, d), as a matrix."""

    def scaled(self, factor: float) -> Precision:
        """factor · S."""
        return self.like(np.asarray(self.array * factor))

    def shifted(self, own: Array) -> Precision:
        """S + an array of this structure."""
        return self.like(np.asarray(self.array + own))

    @property
    @abstractmethod
    def diagonal(self) -> Array:
        """The diagonal of S (d,)."""

    @property
    @abstractmethod
    def variance(self) -> Array:
        """The diagonal of S⁻¹ (d,)."""

    @property
    def covariance(self) -> Array:
        """S⁻¹ (d, d)."""
        return np.diag(self.variance)

    def trace(self, own: Array) -> float:
        """tr(A S⁻¹) for an array A of this structure."""
        return float(np.sum(own * self.variance))

    @abstractmethod
    def quadratic(self, X: Array) -> Array:
        """xᵀS⁻¹x (n,) for the rows of X (n, d)."""

    @abstractmethod
    def root(self, rows: Array) -> Array:
        """C z for the rows z (n, d) or one z (d,)."""

    @abstractmethod
    def root_transpose(self, vector: Array) -> Array:
        """Cᵀ v (d,)."""

    @abstractmethod
    def congruence(self, matrix: Array) -> Array:
        """Cᵀ A C for a symmetric matrix A (d, d)."""

    @abstractmethod
    def largest_ratio(self, numerator: Array, enough: float = -np.inf) -> float:
        """The largest eigenvalue of S^{-1/2} N S^{-1/2}, N a diagonal (d,) or a matrix (d, d).

        `enough` may be returned for an eigenvalue below it.
        """

    @property
    @abstractmethod
    def largest_variance(self) -> float:
        """The largest eigenvalue of S⁻¹."""

    @property
    @abstractmethod
    def spread_size(self) -> int:
        """The number of free entries of W."""

    @abstractmethod
    def spread(self, w: Array) -> Precision | None:
        """The precision whose covariance is C(I + W + Wᵀ)Cᵀ; None where that is not positive definite."""

    @abstractmethod
    def spread_equations(self, w: Array, target: Array) -> Array:
        """tril(Cᵀ T C − (I + W + Wᵀ)⁻¹): zero where the covariance is T⁻¹; T an array of this structure."""

    @property
    @abstractmethod
    def spread_curvature(self) -> Array:
        """The derivative of `spread_equations` at W = 0, which is diagonal."""

    @abstractmethod
    def coordinates(self, reference: Precision) -> Array:
        """S in units of a reference's diagonal, as a vector; a convex combination of such vectors is definite."""

    @abstractmethod
    def at_coordinates(self, x: Array) -> Precision | None:
        """The precision at `coordinates` relative to this one; None where it is not positive definite."""


class DiagonalPrecision(Precision):
    """S = diag(s), s (d,)."""

    whole_hessian = False

    @property
    def is_definite(self) -> bool:
        """Whether every entry is positive."""
        return bool((self.array > 0).all())

    @classmethod
    def adopted(cls, other: Precision) -> Precision:
        """A number on a diagonal."""
        if not isinstance(other, DiagonalPrecision):
            raise ValueError(f"expected a scalar or vector precision, got shape {other.shown.shape}")
        return DiagonalPrecision(other.diagonal.copy(), other.dim)

    def like(self, array: Array) -> Precision:
        """Another diagonal."""
        return DiagonalPrecision(array, self.dim)

    def own(self, matrix: Array) -> Array:
        """The diagonal."""
        return np.diag(matrix).copy()

    def times(self, array: Array, vector: Array) -> Array:
        """Entry by entry."""
        return np.asarray(array * vector)

    def plus(self, matrix: Array) -> Array:
        """The matrix with s added to its diagonal."""
        out = np.array(matrix)
        out[np.diag_indices_from(out)] += self.array
        return out

    @property
    def diagonal(self) -> Array:
        """s."""
        return np.broadcast_to(self.array, (self.dim,))

    @property
    def variance(self) -> Array:
        """1/s."""
        return np.asarray(np.full(self.dim, 1.0) / self.array)

    def quadratic(self, X: Array) -> Array:
        """Σ_j x_j²/s_j."""
        return np.asarray((X * X) @ (1.0 / self.array))

    @cached_property
    def _deviation(self) -> Array:
        return np.asarray(1.0 / np.sqrt(self.diagonal))

    def root(self, rows: Array) -> Array:
        """z/√s."""
        return np.asarray(rows / np.sqrt(self.array))

    def root_transpose(self, vector: Array) -> Array:
        """v/√s."""
        return np.asarray(self._deviation * vector)

    def congruence(self, matrix: Array) -> Array:
        """A_ij/√(s_i s_j)."""
        return np.asarray(self._deviation[:, None] * matrix * self._deviation)

    def largest_ratio(self, numerator: Array, enough: float = -np.inf) -> float:
        """max n/s for a diagonal."""
        if numerator.shape == (self.dim,):
            return float(np.max(numerator / self.array))
        return float(np.linalg.eigvalsh(self.congruence(numerator))[-1])

    @property
    def largest_variance(self) -> float:
        """1/min s."""
        return float(1.0 / np.min(self.array))

    @property
    def spread_size(self) -> int:
        """d."""
        return self.dim

    def spread(self, w: Array) -> Precision | None:
        """s/(1 + 2w)."""
        return None if (w <= -0.5).any() else self.like(self.array / (1.0 + 2.0 * w))

    def spread_equations(self, w: Array, target: Array) -> Array:
        """t/s − 1/(1 + 2w)."""
        return np.asarray(self._deviation**2 * target - 1.0 / (1.0 + 2.0 * w))

    @property
    def spread_curvature(self) -> Array:
        """2."""
        return np.full(self.dim, 2.0)

    def coordinates(self, reference: Precision) -> Array:
        """s/s_ref."""
        return np.asarray(self.array / reference.array)

    def at_coordinates(self, x: Array) -> Precision | None:
        """x s."""
        found = self.like(x * self.array)
        return found if found.is_definite else None


class ScalarPrecision(DiagonalPrecision):
    """S = s·I with one number s that no family varies: a fixed scale, with no coordinates of its own."""

    whole_hessian = True

    @classmethod
    def adopted(cls, other: Precision) -> Precision:
        """A number."""
        if not isinstance(other, ScalarPrecision):
            raise ValueError(f"expected a scalar precision, got shape {other.shown.shape}")
        return other

    def like(self, array: Array) -> Precision:
        """Another number, or a diagonal where an array has one."""
        return ScalarPrecision(array, self.dim) if array.shape == () else DiagonalPrecision(array, self.dim)

    def quadratic(self, X: Array) -> Array:
        """‖x‖²/s."""
        return np.asarray(np.einsum("ij,ij->i", X, X) / self.array)

    @property
    def spread_size(self) -> int:
        """0."""
        return 0

    def spread(self, w: Array) -> Precision | None:
        """Itself."""
        return self

    def spread_equations(self, w: Array, target: Array) -> Array:
        """None."""
        return np.empty(0)

    @property
    def spread_curvature(self) -> Array:
        """None."""
        return np.empty(0)

    def coordinates(self, reference: Precision) -> Array:
        """None."""
        return np.empty(0)

    def at_coordinates(self, x: Array) -> Precision | None:
        """Itself."""
        return self
