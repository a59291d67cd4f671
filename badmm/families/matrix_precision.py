"""Precisions that are matrices: S carries its Cholesky factor, and is factored once however often it is asked."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from scipy.linalg import solve_triangular
from scipy.linalg.blas import dtrmm
from scipy.linalg.lapack import dpotrs, dtrtri

from badmm.checks import Array, cholesky_factor
from badmm.families.precision import Precision


class MatrixPrecision(Precision):
    """S (d, d), symmetric; L with S = LLᵀ is computed on first use and kept."""

    whole_hessian = True
    keeps_curvature = True

    @cached_property
    def factor(self) -> Array | None:
        """Lower L with S = LLᵀ; None where S is not positive definite."""
        return cholesky_factor(self.array)

    @property
    def is_definite(self) -> bool:
        """Whether S has a Cholesky factor."""
        return self.factor is not None

    def check(self) -> None:
        """Raise `ValueError` where S is not positive definite."""
        _ = self.cholesky

    @property
    def cholesky(self) -> Array:
        """The factor; raises `ValueError` where S is not positive definite."""
        if self.factor is None:
            smallest = float(np.linalg.eigvalsh(self.array)[0])
            raise ValueError(f"precision: expected a positive definite matrix, got smallest eigenvalue {smallest:.6g}")
        return self.factor

    @cached_property
    def inverse_cholesky(self) -> Array:
        """L⁻¹, lower. One inverse for many right-hand sides: BLAS's threaded solves are slow at small sizes."""
        return np.asarray(dtrtri(self.cholesky, lower=True)[0])  # of a factor, whose pivots are positive

    def solve(self, vector: Array) -> Array:
        """S⁻¹v (d,) by potrs."""
        return np.asarray(dpotrs(self.cholesky, vector, lower=True)[0])

    @classmethod
    def adopted(cls, other: Precision) -> Precision:
        """The matrix of any other structure."""
        return other if isinstance(other, cls) else cls(other.plus(np.zeros((other.dim, other.dim))), other.dim)

    def like(self, array: Array) -> Precision:
        """Another matrix."""
        return MatrixPrecision(array, self.dim)

    def own(self, matrix: Array) -> Array:
        """All of it."""
        return matrix

    def times(self, array: Array, vector: Array) -> Array:
        """The product of matrix and vector."""
        return np.asarray(array @ vector)

    def plus(self, matrix: Array) -> Array:
        """The sum."""
        return np.asarray(self.array + matrix)

    @property
    def diagonal(self) -> Array:
        """The diagonal of S."""
        return np.diag(self.array)

    @property
    def variance(self) -> Array:
        """The diagonal of S⁻¹."""
        return np.asarray(np.sum(self.inverse_cholesky**2, axis=0))

    @cached_property
    def _covariance(self) -> Array:
        return np.asarray(self.inverse_cholesky.T @ self.inverse_cholesky)

    @property
    def covariance(self) -> Array:
        """L⁻ᵀL⁻¹."""
        return self._covariance

    def trace(self, own: Array) -> float:
        """Σ_ij A_ij (S⁻¹)_ij."""
        return float(np.sum(own * self.covariance))

    def quadratic(self, X: Array) -> Array:
        """‖L⁻¹x‖²."""
        # the triangle halves the operations; X.T is in LAPACK's order
        half = dtrmm(1.0, self.inverse_cholesky, X.T, lower=True)
        return np.asarray(np.einsum("ij,ij->j", half, half))

    def root(self, rows: Array) -> Array:
        """L⁻ᵀz."""
        return np.asarray(rows @ self.inverse_cholesky)

    def root_transpose(self, vector: Array) -> Array:
        """L⁻¹v."""
        return np.asarray(self.inverse_cholesky @ vector)

    def congruence(self, matrix: Array) -> Array:
        """L⁻¹AL⁻ᵀ of one matrix or of a stack, by products with the triangle: half the operations."""
        if matrix.ndim > 2:
            return np.stack([self.congruence(one) for one in matrix])
        half = dtrmm(1.0, self.inverse_cholesky, matrix, lower=True)
        return np.asarray(dtrmm(1.0, self.inverse_cholesky, half, side=1, lower=True, trans_a=True, overwrite_b=True))

    def largest_ratio(self, numerator: Array, enough: float = -np.inf) -> float:
        """The largest eigenvalue of L⁻¹NL⁻ᵀ; `enough` where `enough` · S − N has a Cholesky factor."""
        matrix = np.diag(numerator) if numerator.shape == (self.dim,) else numerator
        if np.isfinite(enough) and cholesky_factor(enough * self.array - matrix) is not None:
            return enough
        # whitened first: LAPACK's generalized subset solver can fail to converge at condition 1e10
        return float(np.linalg.eigvalsh(self.congruence(matrix))[-1])

    @property
    def largest_variance(self) -> float:
        """1/λ_min(S)."""
        return float(1.0 / np.linalg.eigvalsh(self.array)[0])

    @property
    def spread_size(self) -> int:
        """d(d+1)/2."""
        return self.dim * (self.dim + 1) // 2

    @cached_property
    def _triangle(self) -> tuple[Array, Array]:
        return np.tril_indices(self.dim)  # type: ignore[return-value]

    def _inner(self, w: Array) -> Array | None:
        """Lower R with RRᵀ = I + W + Wᵀ."""
        lower = np.zeros((self.dim, self.dim))
        lower[self._triangle] = w
        return cholesky_factor(np.eye(self.dim) + lower + lower.T)

    def spread(self, w: Array) -> Precision | None:
        """HᵀH with H = R⁻¹Lᵀ, RRᵀ = I + W + Wᵀ."""
        inner = self._inner(w)
        if inner is None:
            return None
        half = solve_triangular(inner, self.cholesky.T, lower=True)
        return self.like(half.T @ half)

    def spread_equations(self, w: Array, target: Array) -> Array:
        """The lower triangle of L⁻¹TL⁻ᵀ − (RRᵀ)⁻¹."""
        inner = self._inner(w)
        assert inner is not None
        half = solve_triangular(inner, np.eye(self.dim), lower=True)
        return np.asarray((self.congruence(target) - half.T @ half)[self._triangle])

    @property
    def spread_curvature(self) -> Array:
        """1, and 2 on the diagonal."""
        rows, columns = self._triangle
        return np.where(rows == columns, 2.0, 1.0)

    def coordinates(self, reference: Precision) -> Array:
        """S_ij/√(R_ii R_jj), R the reference."""
        unit = np.sqrt(reference.diagonal)
        return np.asarray(self.array / np.outer(unit, unit)).ravel()

    def at_coordinates(self, x: Array) -> Precision | None:
        """The symmetric part of x_ij √(S_ii S_jj)."""
        unit = np.sqrt(self.diagonal)
        array = x.reshape(self.array.shape) * np.outer(unit, unit)
        found = self.like(0.5 * (array + array.T))
        return found if found.is_definite else None
