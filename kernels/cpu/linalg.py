"""The LAPACK calls of the full Gaussian, by SciPy: potrf, potrs, potri, trtrs, syevr. Solve, never invert, but where
S⁻¹ is itself the result."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np
from scipy.linalg import eigvalsh, get_lapack_funcs

Array = np.ndarray[Any, Any]
NEAR = 0.4  # eigenvalues below it are summed term by term
_names: ContextVar[tuple[Sequence[str], tuple[int, ...]]] = ContextVar("names", default=((), ()))


class NearSingularWarning(RuntimeWarning):
    """A precision (or covariance) is so ill-conditioned that no digit of a solve can be trusted."""


@contextmanager
def naming(names: Sequence[str], index: tuple[int, ...]) -> Iterator[None]:
    """Which arguments, and which member of a stack, an error should name."""
    token = _names.set((names, index))
    try:
        yield
    finally:
        _names.reset(token)


def _argument(label: str) -> str:
    """The public name behind a variable of the generated code, with the client's index."""
    names, index = _names.get()
    matrices = [n for n in names if n.endswith(("precision", "second_moment", "hessian"))]
    name = matrices[-1 if label.endswith("_p") else 0] if matrices else label
    return f"{name}{list(index)}" if index else name


def check_symmetric(name: str, array: Array) -> None:
    """Refuse a stack of matrices that is not symmetric to rounding (8 d ulp of the largest entry)."""
    flipped = np.swapaxes(array, -1, -2)
    scale = np.abs(array).max(initial=0.0)
    difference = np.abs(array - flipped)
    if difference.size and difference.max() > 8 * array.shape[-1] * np.finfo(array.dtype).eps * scale:
        index = tuple(int(i) for i in np.unravel_index(int(difference.argmax()), array.shape))
        pair = f"{array[index]} and {flipped[index]}"
        raise ValueError(f"{name}: expected a symmetric matrix, got {pair} at index {index} and its mirror")


def wide(array: Array) -> Array:
    """The array in float64."""
    return array.astype(np.float64, copy=False)


def cholesky(label: str, matrix: Array) -> Array:
    """Lower factor L with S = LLᵀ; refuses a matrix that is not positive definite, warns of one that is nearly
    singular."""
    (potrf, pocon) = get_lapack_funcs(("potrf", "pocon"), (matrix,))
    factor, info = potrf(matrix, lower=True, clean=True)
    if info != 0:
        what = (
            "a point of the expectation domain (-2 M - m m^T positive definite)"
            if label == "V"
            else "a positive definite matrix"
        )
        raise ValueError(
            f"{_argument(label)}: expected {what}, got one whose leading minor of order {info} is not positive"
        )
    norm = np.abs(matrix).sum(axis=0).max(initial=0.0)
    reciprocal, _ = pocon(factor, norm, uplo="L")
    if reciprocal < matrix.shape[0] * np.finfo(matrix.dtype).eps:
        warnings.warn(
            f"{_argument(label)}: nearly singular, reciprocal condition number {reciprocal:.1e}",
            NearSingularWarning,
            stacklevel=6,
        )
    return np.asarray(factor)


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
