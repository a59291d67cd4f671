"""The LAPACK calls of the full Gaussian, by SciPy: potrf, potrs, potri, trtrs, syevr. Solve, never invert, but where
S⁻¹ is itself the result."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np
from scipy.linalg import eigvalsh, get_lapack_funcs

Array = np.ndarray[Any, Any]
NEAR = 0.4  # eigenvalues below it are summed term by term
_where: ContextVar[tuple[frozenset[str], tuple[int, ...]]] = ContextVar("where", default=(frozenset(), ()))


class NearSingularWarning(RuntimeWarning):
    """A precision (or covariance) is so ill-conditioned that no digit of a solve can be trusted."""


@contextmanager
def member(stacked: Iterable[str], index: tuple[int, ...]) -> Iterator[None]:
    """Which member of a stack an error should name, and which arguments are stacked."""
    token = _where.set((frozenset(stacked), index))
    try:
        yield
    finally:
        _where.reset(token)


def _at(argument: str) -> str:
    """An argument's name with the index of the member that is being computed."""
    stacked, index = _where.get()
    return f"{argument}{list(index)}" if argument in stacked and index else argument


def check_symmetric(name: str, array: Array) -> None:
    """Refuse a stack of matrices that is not symmetric to rounding (8 d ulp of the largest entry)."""
    flipped = np.swapaxes(array, -1, -2)
    scale = np.abs(array).max(axis=(-1, -2), keepdims=True)
    excess = np.abs(array - flipped) - 8 * array.shape[-1] * np.finfo(array.dtype).eps * scale
    if excess.size and excess.max() > 0:
        index = tuple(int(i) for i in np.unravel_index(int(excess.argmax()), array.shape))
        pair = f"{array[index]} and {flipped[index]}"
        raise ValueError(f"{name}: expected a symmetric matrix, got {pair} at index {index} and its mirror")


def wide(array: Array) -> Array:
    """The array in float64."""
    return array.astype(np.float64, copy=False)


def cholesky(argument: str, matrix: Array, expected: str = "a positive definite matrix") -> Array:
    """Lower factor L with S = LLᵀ; refuses a matrix that is not positive definite, warns of one that is nearly
    singular."""
    (potrf,) = get_lapack_funcs(("potrf",), (matrix,))
    factor, info = potrf(matrix, lower=True, clean=True)
    if info != 0:
        raise ValueError(
            f"{_at(argument)}: expected {expected}, got a leading minor of order {info} that is not positive"
        )
    reciprocal = reciprocal_condition(factor, matrix)
    if reciprocal < matrix.shape[0] * np.finfo(matrix.dtype).eps:
        message = f"{_at(argument)}: nearly singular, reciprocal condition number {reciprocal:.1e}"
        warnings.warn(message, NearSingularWarning, stacklevel=6)
    return np.asarray(factor)


def reciprocal_condition(factor: Array, matrix: Array) -> float:
    """1/κ₁ of S = LLᵀ in units that make its diagonal 1.

    A Cholesky factorization is as accurate as in the best units (Higham, Accuracy and Stability, section 10.1): a
    column in nanometres makes S badly scaled, not its solves wrong.
    """
    (pocon,) = get_lapack_funcs(("pocon",), (matrix,))
    unit = 1.0 / np.sqrt(np.diag(matrix))
    norm = (np.abs(matrix) * unit).T.dot(unit).max()
    return float(pocon(factor * unit[:, None], norm, uplo="L")[0])


def solve(factor: Array, vector: Array) -> Array:
    """S⁻¹v by potrs."""
    (potrs,) = get_lapack_funcs(("potrs",), (factor,))
    return np.asarray(potrs(factor, vector, lower=True)[0])


def solve_lower(factor: Array, vector: Array) -> Array:
    """L⁻¹v by trtrs."""
    (trtrs,) = get_lapack_funcs(("trtrs",), (factor,))
    return np.asarray(trtrs(factor, vector, lower=True)[0])


def inverse(factor: Array) -> Array:
    """S⁻¹ by potri, both triangles filled."""
    (potri,) = get_lapack_funcs(("potri",), (factor,))
    lower = np.tril(potri(factor, lower=True)[0])
    return np.asarray(lower + np.tril(lower, -1).T)


def log_det(factor: Array) -> float:
    """log det S = 2 Σ log L_ii."""
    return 2.0 * float(np.log(np.diagonal(factor)).sum())


def whitened_eigenvalues(factor: Array, difference: Array) -> Array:
    """Eigenvalues of L⁻¹DL⁻ᵀ."""
    half = solve_lower(factor, difference)
    white = solve_lower(factor, np.ascontiguousarray(half.T))
    return np.asarray(eigvalsh(0.5 * (white + white.T)))


def ratio_divergence(phi: Callable[[float], float], e: Array, factor_q: Array, factor_p: Array) -> float:
    """Σ φ(e_i), φ(x) = x − log(1 + x), e the eigenvalues of L_q⁻¹(S_p − S_q)L_q⁻ᵀ.

    Term by term where all are small; otherwise Σ e_i less log det S_p − log det S_q: a tiny 1 + e_i lost its digits.
    """
    if np.abs(e).max(initial=0.0) < NEAR:
        return math.fsum(phi(float(x)) for x in e)
    logs = np.log(np.diagonal(factor_p)) - np.log(np.diagonal(factor_q))
    return math.fsum([*(float(x) for x in e), *(-2.0 * float(x) for x in logs)])


def mean_gap(e: Array, xi_q: Array, xi_p: Array, difference: Array, precision: Array, mean: Array) -> Array:
    """S_p (m_q − m_p): from the differences of the parameters where these are small, as S_p m_q − ξ_p elsewhere."""
    if np.abs(e).max(initial=0.0) < NEAR:
        return np.asarray((xi_q - xi_p) + difference @ mean)
    return np.asarray(precision @ mean - xi_p)


def matvec(matrix: Array, vector: Array) -> Array:
    """Hv."""
    return np.asarray(matrix @ vector)


def outer(vector: Array) -> Array:
    """vvᵀ."""
    return np.outer(vector, vector)


def dot(left: Array, right: Array) -> float:
    """uᵀv."""
    return float(left @ right)


def size(matrix: Array) -> int:
    """d."""
    return int(matrix.shape[-1])
