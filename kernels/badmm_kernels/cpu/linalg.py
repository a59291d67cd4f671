"""LAPACK calls of the full Gaussian through SciPy: potrf, potrs, potri, trtrs, syevr.

Systems are solved, never inverted, unless S⁻¹ is itself the result.
"""

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
NEAR = 0.4  # divergences whose eigenvalues are all below it are summed term by term; the series of φ ends here too
_position: ContextVar[tuple[frozenset[str], tuple[int, ...]]] = ContextVar("position", default=(frozenset(), ()))
_trying: ContextVar[bool] = ContextVar("trying", default=False)


class NearSingularWarning(RuntimeWarning):
    """A precision (or covariance) is so ill-conditioned that no digit of a solve can be trusted."""


@contextmanager
def member(stacked: Iterable[str], index: tuple[int, ...]) -> Iterator[None]:
    """Within the context, errors about an argument in `stacked` name the member at `index` of its stack."""
    token = _position.set((frozenset(stacked), index))
    try:
        yield
    finally:
        _position.reset(token)


@contextmanager
def trial_points() -> Iterator[None]:
    """Within the context, and on its thread alone, nearly singular matrices pass without a warning.

    An iteration may visit them; what it returns is checked outside. `warnings.catch_warnings` changes the filters of
    all threads.
    """
    token = _trying.set(True)
    try:
        yield
    finally:
        _trying.reset(token)


def _indexed(argument: str) -> str:
    """Return an argument's name with the index of the member that is being computed."""
    stacked, index = _position.get()
    return f"{argument}{list(index)}" if argument in stacked and index else argument


def check_symmetric(name: str, array: Array) -> None:
    """Raise ValueError unless every matrix of a stack is symmetric to 8 d ulp of its largest entry."""
    flipped = np.swapaxes(array, -1, -2)
    if np.array_equal(array, flipped):
        return
    scale = np.abs(array).max(axis=(-1, -2), keepdims=True)
    excess = np.abs(array - flipped) - 8 * array.shape[-1] * np.finfo(array.dtype).eps * scale
    if excess.size and excess.max() > 0:
        index = tuple(int(i) for i in np.unravel_index(int(excess.argmax()), array.shape))
        pair = f"{array[index]} and {flipped[index]}"
        raise ValueError(f"{name}: expected a symmetric matrix, got {pair} at index {index} and its mirror")


def wide(array: Array) -> Array:
    """Return the array in float64."""
    return array.astype(np.float64, copy=False)


def cholesky(argument: str, matrix: Array, expected: str = "a positive definite matrix") -> Array:
    """Return the lower factor L of S = LLᵀ.

    Raises ValueError if S is not positive definite. Warns with `NearSingularWarning` if its reciprocal condition number
    in units that make its diagonal 1 is below d ulp.
    """
    (potrf,) = get_lapack_funcs(("potrf",), (matrix,))
    factor, info = potrf(matrix, lower=True, clean=True)
    if info != 0:
        raise ValueError(
            f"{_indexed(argument)}: expected {expected}, got a leading minor of order {info} that is not positive"
        )
    check_condition(argument, factor, matrix, stacklevel=7)
    return np.asarray(factor)


def check_condition(argument: str, factor: Array, matrix: Array, stacklevel: int) -> None:
    """Warn with `NearSingularWarning` if the reciprocal condition number of S = LLᵀ is below d ulp (see `cholesky`)."""
    if _trying.get():
        return
    reciprocal = reciprocal_condition(factor, matrix)
    if reciprocal < matrix.shape[0] * np.finfo(matrix.dtype).eps:
        message = f"{_indexed(argument)}: nearly singular, reciprocal condition number {reciprocal:.1e}"
        warnings.warn(message, NearSingularWarning, stacklevel=stacklevel)


def reciprocal_condition(factor: Array, matrix: Array) -> float:
    """Return 1/κ₁ of S = LLᵀ in units that make its diagonal 1.

    A Cholesky factorization is as accurate as in the best units (Higham, Accuracy and Stability, section 10.1): a
    column in nanometres makes S badly scaled, not its solves wrong.
    """
    (pocon,) = get_lapack_funcs(("pocon",), (matrix,))
    unit = 1.0 / np.sqrt(np.diag(matrix))
    norm = (np.abs(matrix) * unit).T.dot(unit).max()
    return float(pocon(factor * unit[:, None], norm, uplo="L")[0])


def solve(factor: Array, vector: Array) -> Array:
    """Return S⁻¹v, by potrs."""
    (potrs,) = get_lapack_funcs(("potrs",), (factor,))
    return np.asarray(potrs(factor, vector, lower=True)[0])


def solve_lower(factor: Array, vector: Array) -> Array:
    """Return L⁻¹v, by trtrs."""
    (trtrs,) = get_lapack_funcs(("trtrs",), (factor,))
    return np.asarray(trtrs(factor, vector, lower=True)[0])


def inverse(factor: Array) -> Array:
    """Return S⁻¹ with both triangles filled, by potri."""
    (potri,) = get_lapack_funcs(("potri",), (factor,))
    lower = np.tril(potri(factor, lower=True)[0])
    return np.asarray(lower + np.tril(lower, -1).T)


def log_det(factor: Array) -> float:
    """Return log det S = 2 Σ log L_ii."""
    return 2.0 * float(np.log(np.diagonal(factor)).sum())


def whitened_eigenvalues(factor: Array, difference: Array) -> Array:
    """Return the eigenvalues of L⁻¹DL⁻ᵀ."""
    half = solve_lower(factor, difference)
    white = solve_lower(factor, np.ascontiguousarray(half.T))
    return np.asarray(eigvalsh(0.5 * (white + white.T)))


def ratio_divergence(phi: Callable[[float], float], e: Array, factor_q: Array, factor_p: Array) -> float:
    """Return Σ φ(e_i) with φ(x) = x − log(1 + x), for the eigenvalues e of L_q⁻¹(S_p − S_q)L_q⁻ᵀ.

    If all |e_i| < 0.4 the terms are summed. Otherwise the sum is Σ e_i − (log det S_p − log det S_q), because 1 + e_i
    loses its digits when e_i is close to −1.
    """
    if np.abs(e).max(initial=0.0) < NEAR:
        return math.fsum(phi(float(x)) for x in e)
    logs = np.log(np.diagonal(factor_p)) - np.log(np.diagonal(factor_q))
    return math.fsum([*(float(x) for x in e), *(-2.0 * float(x) for x in logs)])


def mean_gap(e: Array, xi_q: Array, xi_p: Array, difference: Array, precision: Array, mean: Array) -> Array:
    """Return S_p (m_q − m_p): as (ξ_q − ξ_p) + (S_p − S_q) m_q, without cancellation, if all |e_i| < 0.4."""
    if np.abs(e).max(initial=0.0) < NEAR:
        return np.asarray((xi_q - xi_p) + difference @ mean)
    return np.asarray(precision @ mean - xi_p)


def matvec(matrix: Array, vector: Array) -> Array:
    """Return Hv."""
    return np.asarray(matrix @ vector)


def outer(vector: Array) -> Array:
    """Return vvᵀ."""
    return np.outer(vector, vector)


def dot(left: Array, right: Array) -> float:
    """Return uᵀv."""
    return float(left @ right)


def size(matrix: Array) -> int:
    """Return the dimension d."""
    return int(matrix.shape[-1])
