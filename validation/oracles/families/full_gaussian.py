"""The full Gaussian: mpmath matrices at 50 digits for small sizes, residuals in extended precision for large.

A map that solves or inverts is judged by its residual, which does not depend on the condition number: a result is as
good as possible when it solves a system within rounding of the one given.
"""

from __future__ import annotations

from typing import Any

import mpmath
import numpy as np
import torch

from ...calls import Array
from ...points import generator
from .. import autograd
from ..family import Slots
from ..gaussian import Gaussian


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


class FullGaussian(Gaussian):
    """lambda = (xi, S), xi = S m; mu = (m, -(S^-1 + m m^T)/2)."""

    structure = "matrix"

    def gradients(self, rng: np.random.Generator, size: int, rows: int) -> Slots:
        """Any vectors, and negative definite matrices."""
        first = rng.normal(size=(rows, size))
        return first, -np.stack([spd(rng, size, 20.0, "float64", 0.1) for _ in range(rows)])

    def naturals(self, rng: np.random.Generator, size: int, rows: int, dtype: str) -> Slots:
        """Positive definite matrices of condition 20."""
        first = np.abs(rng.normal(size=(rows, size))).astype(dtype)
        return first, np.stack([spd(rng, size, 20.0, dtype) for _ in range(rows)])

    def prior(self, rng: np.random.Generator, size: int) -> Slots:
        """A precision of 2 I."""
        return np.abs(rng.normal(size=size)) + 1.0, np.eye(size) * 2.0

    def hessian_slot(self, hessian: Any) -> Any:
        """The whole matrix."""
        return hessian

    def moderate(self, rng: np.random.Generator, size: int) -> Slots:
        """A mean of about one, eigenvalues from 1."""
        mean, factor = rng.normal(size=size), rng.normal(size=(size, size))
        matrix = factor @ factor.T / size + np.eye(size)
        return matrix @ mean, 0.5 * (matrix + matrix.T)

    def log_partition_tensor(self, natural: tuple[Any, ...]) -> Any:
        """A(lambda)."""
        xi, matrix = natural[0], autograd.symmetric(natural[1])
        return 0.5 * (xi @ torch.linalg.solve(matrix, xi) - torch.logdet(matrix))

    def standard_tensors(self, natural: tuple[Any, ...]) -> tuple[Any, ...]:
        """(mean, covariance)."""
        matrix = autograd.symmetric(natural[1])
        return torch.linalg.solve(matrix, natural[0]), torch.linalg.inv(matrix)

    def standard_from_expectation(self, mu: tuple[Any, ...]) -> tuple[Any, ...]:
        """(mu_1, -2 mu_2 - mu_1 mu_1^T)."""
        return mu[0], -2.0 * autograd.symmetric(mu[1]) - torch.outer(mu[0], mu[0])

    def distribution(self, natural: tuple[Any, ...]) -> Any:
        """torch's multivariate normal."""
        mean = torch.linalg.solve(natural[1], natural[0])
        return torch.distributions.MultivariateNormal(mean, precision_matrix=natural[1])


ORACLE = FullGaussian()
