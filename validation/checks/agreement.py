"""Agreement of families: full with a diagonal precision = diagonal; diagonal with equal entries = isotropic.

The full Gaussian uses a Cholesky factor and the diagonal one divides, so they agree to 8 units of relative spacing of
the largest entry. Reductions, in float64 in both families, agree to 1e-13; the ADMM lines, which are the same
arithmetic, exactly. The isotropic family has the base measure N(theta; 0, 1/s), so its log-partition differs from the
diagonal one by log(s)/2 per coordinate, and its natural gradient is g = dL/dmu_1 - m dL/dmu_2 of the diagonal one.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..calls import Array
from ..check import Check, check
from ..points import generator
from ..ulps import epsilon

GROUP = "agreement"
SIZE = 9
UNITS = 8.0
REDUCTION_TOLERANCE = 1e-13
Slots = tuple[Array, ...]


def matrix(diagonal: Array) -> Array:
    """Return the diagonal matrix of a vector, or a stack of them."""
    return np.ascontiguousarray(diagonal[..., None] * np.eye(diagonal.shape[-1], dtype=diagonal.dtype))


def embedded(slots: Slots) -> Slots:
    """Return a diagonal family's (vector, vector) as the full family's (vector, diagonal matrix)."""
    return slots[0], matrix(slots[1])


def spacings(left: Slots, right: Slots, dtype: str) -> float:
    """Return the largest difference in relative spacings of the slot's largest entry."""
    worst = 0.0
    for a, b in zip(left, right, strict=True):
        if a.shape != b.shape or not np.all(np.isfinite(a)):
            return math.inf
        scale = float(np.max(np.abs(b))) * epsilon(dtype)
        worst = max(worst, float(np.max(np.abs(a.astype("float64") - b)) / scale))
    return worst


def pair(dtype: str, salt: int, rows: tuple[int, ...] = ()) -> Slots:
    """(mean, precision) of a diagonal Gaussian."""
    rng = generator("agreement", dtype, salt, rows)
    size = (*rows, SIZE)
    return rng.normal(size=size).astype(dtype), rng.uniform(0.25, 4.0, size).astype(dtype)


def named(left: str, right: str, function: str, dtype: str, value: float, tolerance: float, detail: str) -> Check:
    """A check of this group, filed under the richer family."""
    return check(f"{function}: as {right}", GROUP, left, dtype, value, tolerance, detail)


def full_map_values(full: Any, diagonal: Any, dtype: str, rows: tuple[int, ...]) -> dict[str, float]:
    """Differences of the maps, in units of relative spacing."""
    standard, hessian = pair(dtype, 0, rows), pair(dtype, 3, rows)
    natural = diagonal.natural_from_standard(*standard)
    mu = diagonal.expectation_from_natural(*natural)
    covariance = -2.0 * mu[1].astype("float64") - mu[0].astype("float64") ** 2
    outer = mu[0].astype("float64")[..., :, None] * mu[0].astype("float64")[..., None, :]
    second = (-0.5 * (matrix(covariance) + outer)).astype(dtype)
    got_mu = full.expectation_from_natural(*embedded(natural))
    back = diagonal.natural_from_expectation(*mu)
    gradient = diagonal.natural_gradient(standard[0], *hessian)
    wide_natural = full.natural_from_standard(*embedded(standard))
    full_gradient = full.natural_gradient(standard[0], hessian[0], matrix(hessian[1]))
    return {
        "natural_from_standard": spacings(wide_natural, embedded(natural), dtype),
        "standard_from_natural": spacings(
            full.standard_from_natural(*embedded(natural)), embedded(diagonal.standard_from_natural(*natural)), dtype
        ),
        "expectation_from_natural": spacings(got_mu, (mu[0], second), dtype),
        "natural_from_expectation": spacings(full.natural_from_expectation(mu[0], second), embedded(back), dtype)
        / condition_of_inverse(mu),
        "natural_gradient": spacings(full_gradient, embedded(gradient), dtype),
    }


def condition_of_inverse(mu: Slots) -> float:
    """Return the amplification of the rounding errors of second moments: 1 + 2 mean² / variance, the largest."""
    square = mu[0].astype("float64") ** 2
    return float(np.max(1.0 + 2.0 * square / (-2.0 * mu[1] - square)))


def line_values(full: Any, diagonal: Any, dtype: str, rows: tuple[int, ...]) -> dict[str, float]:
    """Return the differences of the ADMM lines, which are the same arithmetic and zero off the diagonal."""
    prior = diagonal.natural_from_standard(*pair(dtype, 4))
    client = diagonal.natural_from_standard(*pair(dtype, 5, rows))
    dual, gradient = pair(dtype, 6, rows), pair(dtype, 7, rows)
    e_prior, e_client, e_dual, e_gradient = (embedded(slots) for slots in (prior, client, dual, gradient))
    results: dict[str, list[Any]] = {
        "dual_update": [(e_dual, e_prior, e_client, 0.3, 0.7), (dual, prior, client, 0.3, 0.7)],
        "server_contribution": [(e_client, e_dual, 0.4, 5), (client, dual, 0.4, 5)],
        "client_map": [(e_prior, e_dual, e_gradient, 0.3), (prior, dual, gradient, 0.3)],
        "cavity": [(e_prior, e_dual, 0.3), (prior, dual, 0.3)],
        "bregman_dual_update": [(e_dual, e_prior, e_gradient, 0.3, 0.7), (dual, prior, gradient, 0.3, 0.7)],
        "contribution_change": [(e_client, e_dual, e_gradient, 0.4, 5), (client, dual, gradient, 0.4, 5)],
        "primal_residual": [(e_client, e_prior), (client, prior)],
        "dual_residual": [(e_client, e_prior, e_dual), (client, prior, dual)],
        "server_update": [(e_prior, embedded(prior), 0.4), (prior, prior, 0.4)],
    }
    if rows:
        results["server_total"] = [(e_client, e_dual, 0.4), (client, dual, 0.4)]
    values = {}
    for function, (wide, narrow) in results.items():
        values[function] = spacings(
            getattr(full, function)(*wide), embedded(getattr(diagonal, function)(*narrow)), dtype
        )
    return values


def reduction_values(full: Any, diagonal: Any, dtype: str) -> dict[str, float]:
    """Relative differences of the reductions."""
    q, p = (diagonal.natural_from_standard(*pair(dtype, salt, (4,))) for salt in (1, 2))
    values = {}
    for function, arguments, wide in (
        ("log_partition", q, embedded(q)),
        ("entropy", q, embedded(q)),
        ("kl", (q, p), (embedded(q), embedded(p))),
    ):
        rows = getattr(diagonal, function)(*arguments, axis=-1)
        total = getattr(diagonal, function)(*arguments)
        got = getattr(full, function)(*wide, axis=-1)
        got_total = getattr(full, function)(*wide)
        scale = float(np.max(np.abs(rows)))
        values[function] = max(float(np.max(np.abs(got - rows))) / scale, abs(got_total - total) / abs(total))
    return values


def full_as_diagonal(full: Any, diagonal: Any, dtype: str) -> list[Check]:
    """The full Gaussian with a diagonal precision against the diagonal Gaussian."""
    found = []
    for rows in ((), (3,)):
        where = "diagonal_gaussian" + (" over clients" if rows else "")
        for function, value in full_map_values(full, diagonal, dtype, rows).items():
            found.append(named("full_gaussian", where, function, dtype, value, UNITS, "relative spacings"))
        for function, value in line_values(full, diagonal, dtype, rows).items():
            found.append(named("full_gaussian", where, function, dtype, value, 0.0, "relative spacings"))
    for function, value in reduction_values(full, diagonal, dtype).items():
        found.append(
            named("full_gaussian", "diagonal_gaussian", function, dtype, value, REDUCTION_TOLERANCE, "relative")
        )
    return found


def isotropic_values(diagonal: Any, isotropic: Any, dtype: str, fixed: float) -> dict[str, float]:
    """Differences of maps and lines, in units of relative spacing of the first slot."""
    mean = pair(dtype, 8)[0]
    entries = np.full_like(mean, fixed)
    natural, other = diagonal.natural_from_standard(mean, entries), pair(dtype, 9)[0]
    mu = diagonal.expectation_from_natural(*natural)
    keyword = {"precision": fixed}
    gradient = diagonal.natural_gradient(mean, other, entries)
    along = gradient[0].astype("float64") - mean.astype("float64") * gradient[1].astype("float64")
    first = {
        "natural_from_standard": (isotropic.natural_from_standard(mean, **keyword), natural),
        "standard_from_natural": (
            isotropic.standard_from_natural(natural[0], **keyword),
            diagonal.standard_from_natural(*natural),
        ),
        "expectation_from_natural": (isotropic.expectation_from_natural(natural[0], **keyword), mu),
        "natural_gradient": (isotropic.natural_gradient(mean, other, None), (along,)),
        "dual_update": (
            isotropic.dual_update((other,), natural[:1], (mean,), 0.3, 0.7),
            diagonal.dual_update((other, entries), natural, (mean, entries), 0.3, 0.7),
        ),
        "server_contribution": (
            isotropic.server_contribution((mean,), (other,), 0.4, 5),
            diagonal.server_contribution((mean, entries), (other, entries), 0.4, 5),
        ),
        "client_map": (
            isotropic.client_map(natural[:1], (other,), (mean,), 0.3),
            diagonal.client_map(natural, (other, entries), (mean, entries), 0.3),
        ),
    }
    values = {name: spacings(got[:1], wanted[:1], dtype) for name, (got, wanted) in first.items()}
    back = isotropic.natural_from_expectation(mu[0], **keyword)
    values["natural_from_expectation"] = spacings(back, natural[:1], dtype)
    return values


def isotropic_reductions(diagonal: Any, isotropic: Any, dtype: str, fixed: float) -> dict[str, float]:
    """Return the relative differences of the reductions, corrected for the base measure."""
    naturals = [diagonal.natural_from_standard(pair(dtype, salt)[0], np.full(SIZE, fixed, dtype)) for salt in (10, 11)]
    q, p = naturals
    keyword = {"precision": fixed}
    base = 0.5 * SIZE * math.log(fixed)
    partition = diagonal.log_partition(*q) + base
    entropy, kl = diagonal.entropy(*q), diagonal.kl(q, p)
    return {
        "log_partition": abs(isotropic.log_partition(q[0], **keyword) - partition) / (abs(partition) + abs(base)),
        "entropy": abs(isotropic.entropy(q[0], **keyword) / entropy - 1.0),
        "kl": abs(isotropic.kl(q[:1], p[:1], **keyword) / kl - 1.0),
    }


def diagonal_as_isotropic(diagonal: Any, isotropic: Any, dtype: str) -> list[Check]:
    """The diagonal Gaussian with equal entries against the isotropic Gaussian."""
    fixed = 0.375
    found = [
        named("diagonal_gaussian", "isotropic_gaussian", name, dtype, value, UNITS / 2, "relative spacings")
        for name, value in isotropic_values(diagonal, isotropic, dtype, fixed).items()
    ]
    for name, value in isotropic_reductions(diagonal, isotropic, dtype, fixed).items():
        found.append(
            named("diagonal_gaussian", "isotropic_gaussian", name, dtype, value, REDUCTION_TOLERANCE, "relative")
        )
    return found
