"""Log-partition, entropy and KL of the full Gaussian against mpmath at 50 digits, and against torch at larger sizes.

Log-partition and entropy: 1e-13 relative to the larger term, times condition number / 1000 if that exceeds 1, because
the quadratic form is as ill-conditioned as its matrix. KL, relative to its value: 1e-6 if it is about 1e-12, 1e-8 at
1e-8, 1e-10 times the same factor from 1e-4, 1e-13 between precisions that differ by a factor up to e, and 1e-12 between
precisions that differ by many decades. Reductions are float64 on exact inputs, so tolerances do not depend on the
dtype of the arrays.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import mpmath
import numpy as np

from ..calls import Array
from ..check import Check, check
from ..kept import kept
from ..oracles import autograd
from ..oracles.families import full_gaussian as oracle
from ..points import generator
from ..ulps import DIGITS
from .reductions import KL_TOLERANCES

FAMILY = "full_gaussian"
SIZES = (1, 2, 3, 6)
LARGE = (40, 120)
CONDITIONS = (1.0, 1e2, 1e4)
MEAN_TO_SD = (1.0, 1e2)
FAR_TOLERANCE = 1e-12
MODERATE_TOLERANCE = 1e-13
Pair = tuple[Array, Array]


def stack(naturals: list[Pair]) -> Pair:
    """Stack natural parameters of one size along a leading axis."""
    return np.stack([xi for xi, _ in naturals]), np.stack([matrix for _, matrix in naturals])


def row_errors(got: Any, values: list[Any], scales: list[Any]) -> list[float]:
    """Return the error of every value relative to its scale; infinite for a result of the wrong shape or dtype."""
    numbers = np.asarray(got)
    if numbers.shape != (len(values),) or numbers.dtype != np.float64 or not np.all(np.isfinite(numbers)):
        return [float("inf")]
    return [float(abs(mpmath.mpf(g) - v) / s) for g, v, s in zip(numbers.tolist(), values, scales, strict=True)]


def conditioned(tolerance: float, condition: float) -> float:
    """Return the tolerance times condition number / 1000, if that factor exceeds 1."""
    return tolerance * max(1.0, condition / 1000.0)


def sum_checks(namespace: Any, dtype: str, function: str, sizes: tuple[int, ...]) -> Iterator[Check]:
    """Check `log_partition` or `entropy`: one value per matrix, and the sum."""
    formula = oracle.log_partition if function == "log_partition" else oracle.entropy
    for condition in CONDITIONS:
        errors = []
        for size in sizes:
            naturals = [oracle.natural(size, condition, dtype, function, i) for i in range(3)]
            terms = [kept(partial(formula, *natural), natural, FAMILY, function) for natural in naturals]
            values = [mpmath.fsum(term) for term in terms]
            scales = [max(abs(part) for part in term) for term in terms]
            xi, matrix = stack(naturals)
            reduce = getattr(namespace, function)
            errors += row_errors(reduce(xi, matrix, axis=-1), values, scales)
            errors += row_errors([reduce(xi, matrix)], [mpmath.fsum(values)], [mpmath.fsum(scales)])
            errors += row_errors([reduce(*naturals[0])], values[:1], scales[:1])
        tolerance = conditioned(1e-13, condition)
        name = f"{function}: condition {condition:.0e}"
        yield check(name, "reduction", FAMILY, dtype, max(errors), tolerance, "relative to the larger term", errors)


def exact_kl(q: Pair, p: Pair) -> Any:
    """Return KL at 50 digits."""
    return kept(partial(oracle.kl, q, p), (*q, *p), FAMILY, "kl")


def near(size: int, condition: float, target: float, ratio: float, dtype: str, index: int) -> tuple[Pair, Pair]:
    """Return a pair whose KL is about `target`: they differ by sqrt(target) in the metric of the first."""
    rng = generator("full near", size, condition, target, ratio, dtype, index)
    matrix = oracle.spd(rng, size, condition, "float64")
    factor = np.linalg.cholesky(matrix)
    step = np.sqrt(target)
    turn = rng.normal(size=(size, size)) / size
    bend = np.clip(step, 0.0, 30.0) * (turn @ turn.T if index % 2 else np.diag(np.abs(rng.normal(size=size))) / size)
    moved = matrix + factor @ bend @ factor.T
    mean = np.linalg.solve(factor.T, ratio * rng.normal(size=size))
    other = mean + np.linalg.solve(factor.T, step * rng.normal(size=size) / np.sqrt(size))
    moved = 0.5 * (moved + moved.T)
    p = ((matrix @ mean).astype(dtype), matrix.astype(dtype))
    return ((moved @ other).astype(dtype), moved.astype(dtype)), p


def kl_checks(namespace: Any, dtype: str, sizes: tuple[int, ...]) -> Iterator[Check]:
    """KL from 1e-12 to 1e4."""
    for target, tolerance in KL_TOLERANCES.items():
        for condition in CONDITIONS:
            for ratio in MEAN_TO_SD:
                errors = kl_errors(namespace, dtype, sizes, target, condition, ratio)
                allowed = max(tolerance, conditioned(1e-10, condition))
                name = f"kl: KL about {target:.0e}, condition {condition:.0e}, mean {ratio:.0e} sd"
                yield check(name, "kl", FAMILY, dtype, max(errors), allowed, "relative", errors)


def far_check(namespace: Any, dtype: str, sizes: tuple[int, ...]) -> Check:
    """Check unrelated pairs whose precisions differ by up to 20 decades in either direction."""
    errors: list[float] = []
    for size in sizes:
        for index, decades in enumerate((0.0, 4.0, -4.0, 10.0, -10.0)):
            (xi_q, s_q), (xi_p, s_p) = (oracle.natural(size, 10.0, dtype, "far", index, side) for side in "qp")
            up, down = (np.asarray(10.0**power, dtype) for power in (decades, -decades))
            q, p = (xi_q * up, s_q * up), (xi_p * down, s_p * down)
            value = exact_kl(q, p)
            errors += row_errors([namespace.kl(q, p)], [value], [value])
    return check("kl: far apart", "kl", FAMILY, dtype, max(errors), FAR_TOLERANCE, "relative", errors)


def moderate_check(namespace: Any, dtype: str, sizes: tuple[int, ...]) -> Check:
    """Check pairs whose precisions differ by factors up to e, around the change from series to logarithms."""
    errors: list[float] = []
    for size in sizes:
        for step in range(1, 21):
            p = oracle.natural(size, 3.0, dtype, "moderate", step)
            rng = generator("moderate", size, step, dtype)
            turn = np.diag(np.exp(0.05 * step * rng.choice((-1.0, 1.0), size) * rng.uniform(0.8, 1.2, size)))
            moved = turn @ p[1] @ turn
            q = (p[0] * np.asarray(1.25, dtype), (0.5 * (moved + moved.T)).astype(dtype))
            value = exact_kl(q, p)
            errors += row_errors([namespace.kl(q, p)], [value], [value])
    return check("kl: moderately apart", "kl", FAMILY, dtype, max(errors), MODERATE_TOLERANCE, "relative", errors)


def kl_errors(
    namespace: Any, dtype: str, sizes: tuple[int, ...], target: float, condition: float, ratio: float
) -> list[float]:
    """Return relative errors of the KL of single matrices, of stacks, and of the sum over a stack."""
    errors: list[float] = []
    for size in sizes:
        pairs = [near(size, condition, target, ratio, dtype, index) for index in range(2)]
        values = [exact_kl(q, p) for q, p in pairs]
        stacked_q, stacked_p = stack([q for q, _ in pairs]), stack([p for _, p in pairs])
        errors += row_errors(namespace.kl(stacked_q, stacked_p, axis=-1), values, values)
        errors += row_errors([namespace.kl(*pairs[0])], values[:1], values[:1])
        errors += row_errors([namespace.kl(stacked_q, stacked_p)], [mpmath.fsum(values)], [mpmath.fsum(values)])
    return errors


def sign_check(namespace: Any, dtype: str) -> Check:
    """Check that KL is 0 between equal arguments and not negative between neighbours."""
    lowest = []
    for size in SIZES:
        for condition in (1.0, 1e4):
            q, p = near(size, condition, 1e-28, 1.0, dtype, 0)
            lowest += [-abs(namespace.kl(p, p)), namespace.kl(q, p), namespace.kl(p, q)]
    value = max(0.0, -min(lowest)) if np.all(np.isfinite(lowest)) else float("nan")
    return check("kl: never negative, 0 at equality", "kl", FAMILY, dtype, value, 0.0, "most negative value")


def torch_checks(namespace: Any, dtype: str) -> Iterator[Check]:
    """Check sizes that are too large for mpmath against torch.distributions and torch's log-determinant."""
    import torch

    for size in LARGE:
        q, p = (oracle.natural(size, 50.0, dtype, "torch", index) for index in range(2))
        a, b = (oracle.ORACLE.distribution(autograd.tensors(natural)) for natural in (q, p))
        partition = oracle.ORACLE.log_partition_tensor(autograd.tensors(q)).item()
        pairs = (
            (namespace.log_partition(*q), partition),
            (namespace.entropy(*q), a.entropy().item()),
            (namespace.kl(q, p), torch.distributions.kl_divergence(a, b).item()),
        )
        worst = max(abs(got / value - 1.0) for got, value in pairs)
        yield check(f"reductions: torch, d = {size}", "autograd", FAMILY, dtype, worst, 1e-11, "relative")


def checks(namespace: Any, family: str, dtype: str, sizes: tuple[int, ...] = SIZES, large: bool = True) -> list[Check]:
    """Return all reduction checks of the full Gaussian in one dtype."""
    assert family == FAMILY
    with mpmath.workdps(DIGITS):
        found = list(sum_checks(namespace, dtype, "log_partition", sizes))
        found += sum_checks(namespace, dtype, "entropy", sizes)
        found += kl_checks(namespace, dtype, sizes)
        found.append(moderate_check(namespace, dtype, sizes))
        found.append(far_check(namespace, dtype, sizes))
    found.append(sign_check(namespace, dtype))
    if large:
        found += torch_checks(namespace, dtype)
    return found
