"""Matrix functions of the full Gaussian on stacks (n, d, d) by the device's Cholesky factors, triangular solves and
eigenvalues.

Systems are solved, never inverted, unless S⁻¹ is itself the result. Nothing waits for the device: a factor is checked
against its matrix on the device, and a failure goes to the record of domain errors (status.py). A stack of one matrix
is shared by all members of the other stacks.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Protocol

from badmm_kernels.gpu.device import current

Array = Any
NEAR = 0.4  # as in cpu/linalg.py: divergences whose eigenvalues are all below it are summed term by term
SLACK = 8.0  # times d ulp: bound of the rounding error of the product of the factors


class CheckRecorder(Protocol):
    """The recipient of the results of checks."""

    def factor(self, argument: str, expected: str, orders: Array) -> None:
        """Record, per member, the order of the first leading minor that is not positive; 0 if there is none."""


checks: ContextVar[CheckRecorder] = ContextVar("checks")


def _xp() -> Any:
    return current().memory.xp


def _alike(left: Array, right: Array) -> tuple[Array, Array]:
    """Return both stacks with the same number of members; a shared one is repeated."""
    count = max(left.shape[0], right.shape[0])
    xp = _xp()
    both = [a if a.shape[0] == count else xp.ascontiguousarray(xp.broadcast_to(a, (count, *a.shape[1:])))
            for a in (left, right)]  # fmt: skip
    return both[0], both[1]


def _transposed(stack: Array) -> Array:
    return _xp().swapaxes(stack, -1, -2)


def wide(array: Array) -> Array:
    """Return the array in float64."""
    return array.astype("float64", copy=False)


def cholesky(argument: str, matrix: Array, expected: str = "a positive definite matrix") -> Array:
    """Return lower factors L of S = LLᵀ and report the members that have none.

    The check is independent of what the library returns on failure: it reports the first row of L whose diagonal is not
    positive or whose row of LLᵀ differs from S by more than rounding.
    """
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
    """Return L⁻¹v, or L⁻¹B."""
    return _solve(factor, right, transposed=False)


def _solve(factor: Array, right: Array, transposed: bool) -> Array:
    vector = right.ndim == 2
    factor, right = _alike(factor, right[..., None] if vector else right)
    result = current().lapack.solve_triangular(factor, right, transposed)
    return result[..., 0] if vector else result


def solve(factor: Array, vector: Array) -> Array:
    """Return S⁻¹v."""
    return _solve(factor, _solve(factor, vector, transposed=False), transposed=True)


def inverse(factor: Array) -> Array:
    """Return S⁻¹ = L⁻ᵀL⁻¹; its upper triangle mirrors the lower one."""
    xp = _xp()
    half = solve_lower(factor, xp.eye(factor.shape[-1], dtype=factor.dtype)[None])
    lower = xp.tril(_transposed(half) @ half)
    return lower + _transposed(xp.tril(lower, -1))


def log_det(factor: Array) -> Array:
    """Return log det S = 2 Σ log L_ii per member."""
    xp = _xp()
    return 2.0 * xp.log(xp.diagonal(factor, axis1=-2, axis2=-1)).sum(axis=-1)


def whitened_eigenvalues(factor: Array, difference: Array) -> Array:
    """Return the eigenvalues of L⁻¹DL⁻ᵀ, one row per member."""
    half = solve_lower(factor, difference)
    white = solve_lower(factor, _xp().ascontiguousarray(_transposed(half)))
    return current().lapack.eigvalsh(0.5 * (white + _transposed(white)))


def ratio_divergence(phi: Callable[[Array], Array], e: Array, factor_q: Array, factor_p: Array) -> Array:
    """Return Σ φ(e_i) per member with φ(x) = x − log(1 + x), for the eigenvalues e of L_q⁻¹(S_p − S_q)L_q⁻ᵀ.

    If all |e_i| < 0.4 the terms are summed. Otherwise the sum is Σ e_i − (log det S_p − log det S_q), because 1 + e_i
    loses its digits when e_i is close to −1.
    """
    xp = _xp()
    logs = [xp.log(xp.diagonal(f, axis1=-2, axis2=-1)) for f in (factor_q, factor_p)]
    far = (e - 2.0 * (logs[1] - logs[0])).sum(axis=-1)
    return xp.where(_near(e), phi(e).sum(axis=-1), far)


def _near(e: Array) -> Array:
    return _xp().abs(e).max(axis=-1) < NEAR


def mean_gap(e: Array, xi_q: Array, xi_p: Array, difference: Array, precision: Array, mean: Array) -> Array:
    """Return S_p (m_q − m_p): as (ξ_q − ξ_p) + (S_p − S_q) m_q, without cancellation, if all |e_i| < 0.4."""
    close = (xi_q - xi_p) + matvec(difference, mean)
    return _xp().where(_near(e)[:, None], close, matvec(precision, mean) - xi_p)


def matvec(matrix: Array, vector: Array) -> Array:
    """Return Hv."""
    return (matrix @ vector[..., None])[..., 0]


def outer(vector: Array) -> Array:
    """Return vvᵀ."""
    return vector[..., :, None] * vector[..., None, :]


def dot(left: Array, right: Array) -> Array:
    """Return uᵀv per member."""
    return (left * right).sum(axis=-1)


def size(matrix: Array) -> int:
    """Return the dimension d."""
    return int(matrix.shape[-1])
