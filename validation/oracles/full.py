"""The full Gaussian's oracles: mpmath matrices at 50 digits for small sizes, residuals in extended precision for large.

A map that solves or inverts is judged by its residual, which does not depend on the condition number: a result is as
good as possible when it solves a system within rounding of the one given.
"""

from __future__ import annotations

from typing import Any

import mpmath
import numpy as np

from ..calls import Array
from ..points import generator


def spd(rng: np.random.Generator, size: int, condition: float, dtype: str, scale: float = 1.0) -> Array:
    """A symmetric positive definite matrix with eigenvalues log-uniform over ``scale .. scale * condition``."""
    basis, _ = np.linalg.qr(rng.normal(size=(size, size)))
    eigenvalues = scale * condition ** (np.arange(size) / max(size - 1, 1))
    matrix = (basis * eigenvalues) @ basis.T
    return np.ascontiguousarray(0.5 * (matrix + matrix.T)).astype(dtype)


def symmetric(rng: np.random.Generator, size: int, dtype: str) -> Array:
    """Any symmetric matrix, its entries spread over four decades."""
    matrix = rng.normal(size=(size, size)) * 10.0 ** rng.uniform(-2.0, 2.0, (size, size))
    return np.ascontiguousarray(np.tril(matrix) + np.tril(matrix, -1).T).astype(dtype)


def natural(size: int, condition: float, dtype: str, *key: object) -> tuple[Array, Array]:
    """A natural parameter (xi, S) whose mean is a few standard deviations from zero."""
    rng = generator("full", size, condition, dtype, *key)
    matrix = spd(rng, size, condition, dtype)
    factor = np.linalg.cholesky(matrix.astype("float64"))
    return (factor @ (2.0 * rng.normal(size=size))).astype(dtype), matrix


def norm(array: Any) -> float:
    """Largest row sum of a matrix, largest entry of a vector."""
    absolute = np.abs(array)
    return float(absolute.sum(axis=-1).max() if absolute.ndim == 2 else absolute.max())


def wide(array: Array) -> Any:
    """The array in the platform's extended precision."""
    return array.astype(np.longdouble)


def solve_residual(matrix: Array, solution: Array, right: Array) -> float:
    """|| S x - b || / (|| S || || x ||)."""
    residual = wide(matrix) @ wide(solution) - wide(right)
    return norm(residual) / (norm(matrix) * norm(solution) or 1.0)


def product_error(matrix: Array, vector: Array, got: Array, added: Array | None = None) -> float:
    """Largest ``|got - (added + S x)| / (|added| + |S| |x|)``, entry by entry."""
    start = np.zeros(len(vector)) if added is None else added
    exact = wide(start) + wide(matrix) @ wide(vector)
    scale = np.abs(wide(start)) + np.abs(wide(matrix)) @ np.abs(wide(vector))
    return float(np.max(np.abs(wide(got) - exact) / scale))


def inverse_residual(matrix: Array, mean: Array, second: Array) -> float:
    """|| S V - I || / (|| S || (|| V || + || m m^T ||)) with the covariance V = -2 M - m m^T."""
    covariance = -2 * wide(second) - np.outer(wide(mean), wide(mean))
    residual = wide(matrix) @ covariance - np.eye(len(mean))
    return norm(residual) / (norm(matrix) * (norm(covariance) + norm(np.outer(mean, mean))))


def exact_matrix(array: Array) -> Any:
    """A float array (matrix or vector) as an mpmath matrix, without rounding."""
    return mpmath.matrix(array.astype("float64").tolist())


def log_determinant(matrix: Any) -> Any:
    """log det of a positive definite mpmath matrix."""
    factor = mpmath.cholesky(matrix)
    return 2 * mpmath.fsum(mpmath.log(factor[i, i]) for i in range(matrix.rows))


def solve(matrix: Any, right: Any) -> Any:
    """S^-1 b in mpmath."""
    return mpmath.cholesky_solve(matrix, right)


def log_partition(xi: Array, matrix: Array) -> list[Any]:
    """The terms xi^T S^-1 xi / 2 and -log det(S) / 2."""
    vector, precision = exact_matrix(xi), exact_matrix(matrix)
    quadratic = (vector.T * solve(precision, vector))[0, 0]
    return [quadratic / 2, -log_determinant(precision) / 2]


def entropy(xi: Array, matrix: Array) -> list[Any]:
    """The terms d log(2 pi e) / 2 and -log det(S) / 2."""
    constant = len(xi) * mpmath.log(2 * mpmath.pi * mpmath.e) / 2
    return [constant, -log_determinant(exact_matrix(matrix)) / 2]


def kl(q: tuple[Array, Array], p: tuple[Array, Array]) -> Any:
    """(tr(S_q^-1 S_p) - d - log det(S_p) + log det(S_q) + (m_q - m_p)^T S_p (m_q - m_p)) / 2."""
    (xi_q, s_q), (xi_p, s_p) = ((exact_matrix(x), exact_matrix(s)) for x, s in (q, p))
    size = s_q.rows
    trace = mpmath.fsum(solve(s_q, s_p[:, i])[i] for i in range(size))
    shift = solve(s_q, xi_q) - solve(s_p, xi_p)
    quadratic = (shift.T * (s_p * shift))[0, 0]
    return (trace - size - log_determinant(s_p) + log_determinant(s_q) + quadratic) / 2
