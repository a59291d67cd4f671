"""The matrix functions of the full Gaussian on stacks (n, d, d), by the device's Cholesky, triangular solves and
eigenvalues. Solve, never invert, but where S⁻¹ is itself the result.

Nothing here waits for the device: a factorisation is checked against its matrix, and what the check finds goes into the
record of domain errors (status.py). A stack of one is shared by all members of the others.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Protocol

from badmm_kernels.gpu.device import current

Array = Any
NEAR = 0.4  # eigenvalues below it are summed term by term, as kernels/badmm_kernels/cpu/linalg.py does
SLACK = 8.0  # times d ulp: what rounding leaves between a matrix and the product of its factors


class Checks(Protocol):
    """What a call does with the findings of its checks."""

    def factor(self, argument: str, expected: str, orders: Array) -> None:
        """Orders of the first leading minor that is not positive, a member each; 0 where there is none."""


checks: ContextVar[Checks] = ContextVar("checks")


def _xp() -> Any:
    return current().memory.xp


def _alike(left: Array, right: Array) -> tuple[Array, Array]:
    """Both with as many members: a shared one is repeated."""
    count = max(left.shape[0], right.shape[0])
    xp = _xp()
    both = [a if a.shape[0] == count else xp.ascontiguousarray(xp.broadcast_to(a, (count, *a.shape[1:])))
            for a in (left, right)]  # fmt: skip
    return both[0], both[1]


def _transposed(stack: Array) -> Array:
    return _xp().swapaxes(stack, -1, -2)


def wide(array: Array) -> Array:
    """The array in float64."""
    return array.astype("float64", copy=False)


def cholesky(argument: str, matrix: Array, expected: str = "a positive definite matrix") -> Array:
    """Lower factors L with S = LLᵀ. A member without one is found by L itself: the first row whose diagonal is not
    positive or whose product misses the matrix by more than rounding; no library's habits on failure are relied on."""
    xp, size = _xp(), matrix.shape[-1]
    factor = current().lapack.cholesky(matrix)
    unit = SLACK * (size + 1) * xp.finfo(matrix.dtype).eps
    missed = xp.tril(xp.abs(matrix - factor @ _transposed(factor))).max(axis=-1)
    scale = xp.abs(matrix).max(axis=(-1, -2))[:, None]
    diagonal = xp.diagonal(factor, axis1=-2, axis2=-1)
    wrong = ~((diagonal > 0) & (missed <= unit * scale))
    orders = xp.where(wrong.any(axis=-1), wrong.argmax(axis=-1) + 1, 0)
    checks.get().factor(argument, expected, orders)
    return factor


def solve_lower(factor: Array, right: Array) -> Array:
    """L⁻¹v, or L⁻¹B."""
    return _solve(factor, right, transposed=False)


def _solve(factor: Array, right: Array, transposed: bool) -> Array:
    vector = right.ndim == 2
    factor, right = _alike(factor, right[..., None] if vector else right)
    result = current().lapack.solve_triangular(factor, right, transposed)
    return result[..., 0] if vector else result


def solve(factor: Array, vector: Array) -> Array:
    """S⁻¹v."""
    return _solve(factor, _solve(factor, vector, transposed=False), transposed=True)


def inverse(factor: Array) -> Array:
    """S⁻¹ = L⁻ᵀL⁻¹, its upper triangle the mirror of its lower one."""
    xp = _xp()
    half = solve_lower(factor, xp.eye(factor.shape[-1], dtype=factor.dtype)[None])
    lower = xp.tril(_transposed(half) @ half)
    return lower + _transposed(xp.tril(lower, -1))


def log_det(factor: Array) -> Array:
    """log det S = 2 Σ log L_ii, a member each."""
    xp = _xp()
    return 2.0 * xp.log(xp.diagonal(factor, axis1=-2, axis2=-1)).sum(axis=-1)


def whitened_eigenvalues(factor: Array, difference: Array) -> Array:
    """Eigenvalues of L⁻¹DL⁻ᵀ, a row a member."""
    half = solve_lower(factor, difference)
    white = solve_lower(factor, _xp().ascontiguousarray(_transposed(half)))
    return current().lapack.eigvalsh(0.5 * (white + _transposed(white)))


def ratio_divergence(phi: Callable[[Array], Array], e: Array, factor_q: Array, factor_p: Array) -> Array:
    """Σ φ(e_i), φ(x) = x − log(1 + x), e the eigenvalues of L_q⁻¹(S_p − S_q)L_q⁻ᵀ, a member each.

    Term by term where all are small; otherwise Σ e_i less log det S_p − log det S_q: a tiny 1 + e_i lost its digits.
    """
    xp = _xp()
    logs = [xp.log(xp.diagonal(f, axis1=-2, axis2=-1)) for f in (factor_q, factor_p)]
    apart = (e - 2.0 * (logs[1] - logs[0])).sum(axis=-1)
    return xp.where(_near(e), phi(e).sum(axis=-1), apart)


def _near(e: Array) -> Array:
    return _xp().abs(e).max(axis=-1) < NEAR


def mean_gap(e: Array, xi_q: Array, xi_p: Array, difference: Array, precision: Array, mean: Array) -> Array:
    """S_p (m_q − m_p): from the differences of the parameters where these are small, as S_p m_q − ξ_p elsewhere."""
    close = (xi_q - xi_p) + matvec(difference, mean)
    return _xp().where(_near(e)[:, None], close, matvec(precision, mean) - xi_p)


def matvec(matrix: Array, vector: Array) -> Array:
    """Hv."""
    return (matrix @ vector[..., None])[..., 0]


def outer(vector: Array) -> Array:
    """vvᵀ."""
    return vector[..., :, None] * vector[..., None, :]


def dot(left: Array, right: Array) -> Array:
    """uᵀv, a member each."""
    return (left * right).sum(axis=-1)


def size(matrix: Array) -> int:
    """d."""
    return int(matrix.shape[-1])
