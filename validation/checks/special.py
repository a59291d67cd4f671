"""The gamma family's scalar functions and its inverse map.

lgamma, digamma and trigamma: 1e-14 relative over 1e-4 .. 1e8 and beyond; where lgamma (at 1 and 2) or digamma (at
1.4616...) passes through zero, the same figure as an absolute error.

The inverse map is ill-conditioned for a large shape, so it is measured as a backward error: the smallest delta for
which the result is the exact image of ``mu_1 (1 + delta), mu_2 (1 + delta)``. With shape a, rate b that is, to first
order, the larger of ``|digamma(a) - log b - mu_1| / (|mu_1| + 1)`` and ``|a/b + mu_2| / |mu_2|``: 1e-13 in float64,
and in float32, where the results are rounded, 2 units of relative spacing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import mpmath
import numpy as np

from ..calls import Array
from ..check import Check, check
from ..points import generator
from ..ulps import DIGITS, epsilon, exact, scaled_error

FAMILY = "gamma"
TOLERANCE = 1e-14
INVERSE_TOLERANCE = 1e-13

# An interval around its zeros in which a function's error is measured absolutely.
NEAR_ZERO: Mapping[str, tuple[float, float]] = {"lgamma": (0.5, 2.5), "digamma": (1.0, 2.0), "trigamma": (0.0, 0.0)}


def oracle(name: str, point: Any) -> Any:
    """The function at 50 digits."""
    if name == "lgamma":
        return mpmath.loggamma(point)
    return mpmath.psi(0 if name == "digamma" else 1, point)


def regions(count: int) -> dict[str, Array]:
    """The points at which the scalar functions are checked."""
    rng = generator("special", count)
    offsets = np.concatenate([sign * 2.0 ** -np.arange(1.0, 50.0) for sign in (-1.0, 1.0)])
    zeros = np.concatenate([centre + offsets for centre in (1.0, 2.0, 1.4616321449683622)])
    steps = np.arange(1.0, 40.5, 0.5)
    seams = np.concatenate([steps, np.nextafter(steps, 0.0), np.nextafter(steps, np.inf)])
    return {
        "1e-4 .. 1e8": 10.0 ** rng.uniform(-4.0, 8.0, count),
        "0.2 .. 40": rng.uniform(0.2, 40.0, count),
        "around the zeros": zeros[zeros > 0.0],
        "integers, half-integers and their neighbours": seams,
        "beyond, 1e-30 .. 1e30": 10.0 ** rng.uniform(-30.0, 30.0, count // 2),
    }


def scalar_error(name: str, got: float, point: float) -> float:
    """Relative error, or absolute error near a zero."""
    value = oracle(name, mpmath.mpf(point))
    low, high = NEAR_ZERO[name]
    return scaled_error(got, [value], floor=1.0 if low <= point <= high else 0.0)


def scalar_checks(functions: Mapping[str, Callable[[float], float]], count: int = 1500) -> list[Check]:
    """``functions`` maps "lgamma", "digamma", "trigamma" to scalar functions of one positive number."""
    found: list[Check] = []
    with mpmath.workdps(DIGITS):
        for region, points in regions(count).items():
            for name, function in functions.items():
                errors = [scalar_error(name, float(function(point)), point) for point in points.tolist()]
                detail = "relative; absolute near a zero"
                found.append(
                    check(f"{name}: {region}", "special", FAMILY, "float64", max(errors), TOLERANCE, detail, errors)
                )
    return found


def inverse_points(dtype: str, count: int) -> tuple[Array, Array]:
    """Expectation parameters of gammas with shapes log-uniform over 1e-4 .. 1e8, kept where in the domain."""
    rng = generator("gamma inverse", dtype, count)
    shape, rate = 10.0 ** rng.uniform(-4.0, 8.0, count), 10.0 ** rng.uniform(-4.0, 4.0, count)
    shape[:13] = 10.0 ** np.arange(-4.0, 9.0)
    first = [float(mpmath.digamma(a) - mpmath.log(b)) for a, b in zip(exact(shape), exact(rate), strict=True)]
    pair = np.array(first).astype(dtype), (-shape / rate).astype(dtype)
    keep = [mpmath.log(-s) - f > 1e-9 for f, s in zip(exact(pair[0]), exact(pair[1]), strict=True)]
    return pair[0][keep], pair[1][keep]


def backward_error(shape: float, rate: float, first: float, second: float) -> float:
    """The smallest relative change of the expectation parameters that makes the result exact, to first order."""
    if not (0.0 < shape < math.inf and 0.0 < rate < math.inf):
        return math.inf
    a, b, mu1, mu2 = exact((shape, rate, first, second))
    by_logarithm = abs(mpmath.digamma(a) - mpmath.log(b) - mu1) / (abs(mu1) + 1)
    return float(max(by_logarithm, abs((a / b + mu2) / mu2)))


def inverse_check(namespace: Any, dtype: str, count: int = 1500) -> Check:
    """natural_from_expectation of the gamma family."""
    tolerance = INVERSE_TOLERANCE if dtype == "float64" else 2.0 * epsilon(dtype)
    with mpmath.workdps(DIGITS):
        first, second = inverse_points(dtype, count)
        shape, rate = namespace.natural_from_expectation(first, second)
        columns = (array.tolist() for array in (shape, rate, first, second))
        errors = [backward_error(*point) for point in zip(*columns, strict=True)]
    return check(
        "natural_from_expectation: shape 1e-4 .. 1e8",
        "backward error",
        FAMILY,
        dtype,
        max(errors),
        tolerance,
        "relative change of the input",
        errors,
    )
