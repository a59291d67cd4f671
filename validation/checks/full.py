"""Accuracy of the full Gaussian: ADMM lines in ulps, products entry by entry, solves and inverses by their residual.

Tolerances, with d the dimension and eps the spacing of the dtype at 1: 2 ulp of the largest term for the ADMM lines;
d eps (at least 4 eps) for a product, relative to the sum of its terms' magnitudes, and for the residual of a solve or
inverse, relative to the norms of its factors. Returned matrices are exactly symmetric.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import mpmath
import numpy as np

from ..calls import Array, Call, invoke
from ..check import Check, check
from ..oracles.families import full_gaussian as oracle
from ..oracles.lines import LINES, scalars_of
from ..points import generator
from ..ulps import DIGITS, epsilon
from .elementwise import linear_check
from .layout import different, fused_check

FAMILY = "full_gaussian"
SMALL = (1, 2, 3, 8)
SIZES = (1, 2, 5, 17, 60, 150)
CONDITIONS = {"float64": (1.0, 1e4, 1e7), "float32": (1.0, 1e2)}
RESIDUAL = "residual relative to the norms, in eps"


def bound(size: int) -> float:
    """The tolerance of products and residuals, in units of eps."""
    return float(max(size, 4))


def linear_calls(size: int, dtype: str) -> Iterator[Call]:
    """Yield the ADMM lines on vectors and symmetric matrices, at ordinary and cancelling points."""
    rng = generator("full linear", size, dtype)

    def dual() -> tuple[Array, Array]:
        return (10.0 * rng.normal(size=size)).astype(dtype), oracle.symmetric(rng, size, dtype)

    server, client, prior = (oracle.natural(size, 100.0, dtype, "linear", i) for i in range(3))
    one_ulp = np.array(1.0 + epsilon(dtype), dtype=dtype)
    operands = {"server": server, "client": client, "prior": prior, "start": prior}
    operands |= {name: dual() for name in ("dual", "gradient", "total", "sent")}
    near = operands | {"client": (server[0] * one_ulp, server[1] * one_ulp)}
    scalars = scalars_of(0.3, 0.7, 0.4)
    for name, line in LINES.items():
        yield line.call(name, operands, scalars, f"d = {size}")
        if {"server", "client"} <= set(line.operands):
            yield line.call(name, near, scalars, f"client at the server, d = {size}")


def linear_checks(namespace: Any, dtype: str, sizes: tuple[int, ...]) -> Iterator[Check]:
    """Check the ADMM lines against mpmath, and the fused ones against the two calls that they replace."""
    with mpmath.workdps(DIGITS):
        for size in sizes:
            for call in linear_calls(size, dtype):
                yield linear_check(namespace, FAMILY, dtype, call)
                if call.function == "round_update":
                    yield fused_check(namespace, FAMILY, dtype, call)


def asymmetry(matrix: Array) -> float:
    """Return the number of entries that differ from their mirror entry."""
    return float(np.sum(matrix != np.swapaxes(matrix, -1, -2)))


def standard_errors(namespace: Any, size: int, condition: float, dtype: str) -> dict[str, float]:
    """Errors of the two maps between standard and natural parameters, in units of eps."""
    xi, matrix = oracle.natural(size, condition, dtype)
    mean, precision = namespace.standard_from_natural(xi, matrix)
    back_xi, back = namespace.natural_from_standard(mean, matrix)
    unit = epsilon(dtype)
    changed = different((precision, back), (matrix, matrix))
    return {
        "standard_from_natural": oracle.solve_residual(matrix, mean, xi) / unit + changed,
        "natural_from_standard": oracle.product_error(matrix, mean, back_xi) / unit + changed,
    }


def expectation_errors(namespace: Any, size: int, condition: float, dtype: str) -> dict[str, float]:
    """Errors of the two maps between natural and expectation parameters in units of eps, plus the asymmetry."""
    xi, matrix = oracle.natural(size, condition, dtype)
    mean, second = namespace.expectation_from_natural(xi, matrix)
    back_xi, back = namespace.natural_from_expectation(mean, second)
    unit = epsilon(dtype)
    forward = max(oracle.solve_residual(matrix, mean, xi), oracle.inverse_residual(matrix, mean, second))
    backward = max(oracle.product_error(back, mean, back_xi), oracle.inverse_residual(back, mean, second))
    return {
        "expectation_from_natural": forward / unit + asymmetry(second),
        "natural_from_expectation": backward / unit + asymmetry(back),
    }


def gradient_errors(namespace: Any, size: int, condition: float, dtype: str) -> dict[str, float]:
    """Errors of the natural gradient at a random point and at g = H m, which cancels, in units of eps."""
    rng = generator("full gradient", size, condition, dtype)
    mean, hessian = rng.normal(size=size).astype(dtype), oracle.symmetric(rng, size, dtype)
    balanced = (hessian.astype("float64") @ mean).astype(dtype)
    errors = []
    for gradient in ((10.0 * rng.normal(size=size)).astype(dtype), balanced):
        first, second = namespace.natural_gradient(mean, gradient, hessian)
        errors.append(oracle.product_error(-hessian, mean, first, added=gradient) / epsilon(dtype))
        errors.append(different((second,), (-hessian,)))
    return {"natural_gradient": max(errors)}


def residual_checks(namespace: Any, dtype: str, sizes: tuple[int, ...]) -> Iterator[Check]:
    """Check all maps by size, at the worst condition number."""
    measures: tuple[Callable[[Any, int, float, str], dict[str, float]], ...]
    measures = (standard_errors, expectation_errors, gradient_errors)
    for size in sizes:
        for measure in measures:
            found: dict[str, list[float]] = {}
            for condition in CONDITIONS[dtype]:
                for name, value in measure(namespace, size, condition, dtype).items():
                    found.setdefault(name, []).append(value)
            for name, values in found.items():
                label = f"{name}: d = {size}"
                yield check(label, "residual", FAMILY, dtype, np.max(values), bound(size), RESIDUAL, values)


def map_calls(size: int, dtype: str) -> list[Call]:
    """Return one call of every array-valued map."""
    rng = generator("full maps", size, dtype)
    xi, matrix = oracle.natural(size, 10.0, dtype)
    mean = rng.normal(size=size).astype(dtype)
    covariance = oracle.spd(rng, size, 10.0, "float64")
    second = (-0.5 * (covariance + np.outer(mean, mean))).astype(dtype)
    second = np.ascontiguousarray(np.tril(second) + np.tril(second, -1).T)
    return [
        Call("natural_from_standard", (mean, matrix)),
        Call("standard_from_natural", (xi, matrix)),
        Call("expectation_from_natural", (xi, matrix)),
        Call("natural_from_expectation", (mean, second)),
        Call("natural_gradient", (mean, xi, oracle.symmetric(rng, size, dtype))),
    ]


def stacked(calls: list[Call]) -> Call:
    """Return calls of one function with equal scalars as one call with a leading client axis."""

    def join(position: int) -> Any:
        given = [call.args[position] for call in calls]
        if isinstance(given[0], tuple):
            return tuple(np.stack(slots) for slots in zip(*given, strict=True))
        return np.stack(given) if isinstance(given[0], np.ndarray) else given[0]

    return replace(calls[0], args=tuple(join(position) for position in range(len(calls[0].args))))


def layout_checks(namespace: Any, dtype: str) -> Iterator[Check]:
    """Check that a stack over clients equals a loop, `out=` receives the result, and inputs are unchanged."""
    size = 7
    variants = [map_calls(size, dtype) + list(linear_calls(size, dtype)) for _ in range(3)]
    for number, variant in enumerate(variants):
        scale = np.array(1.0 + number, dtype=dtype)
        variants[number] = [call.mapped(partial(np.multiply, scale)) for call in variant]
    for calls in zip(*variants, strict=True):
        if calls[0].function == "natural_from_expectation":
            calls = tuple(calls[0].mapped(lambda array: array.copy()) for _ in calls)
        rows = [invoke(namespace, call) for call in calls]
        loop = tuple(np.stack(slots) for slots in zip(*rows, strict=True))
        bad = different(invoke(namespace, stacked(list(calls))), loop)
        name = calls[0].function
        yield check(f"{name}: client axis", "layout", FAMILY, dtype, bad, 0.0, "entries that differ")
        out = tuple(np.full_like(slot, 0.125) for slot in rows[0])
        before = [array.copy() for array in calls[0].arrays()]
        returned = invoke(namespace, calls[0], out=out)
        bad = different(out, rows[0]) + different(tuple(before), tuple(calls[0].arrays()))
        bad += float(any(a is not b for a, b in zip(returned, out, strict=True)))
        yield check(f"{name}: out=", "layout", FAMILY, dtype, bad, 0.0, "entries that differ")


def checks(namespace: Any, family: str, dtype: str, sizes: tuple[int, ...] = SIZES) -> list[Check]:
    """Return all checks of maps and ADMM lines of the full Gaussian in one dtype."""
    assert family == FAMILY
    small = tuple(size for size in SMALL if size <= max(sizes))
    return [
        *linear_checks(namespace, dtype, small),
        *residual_checks(namespace, dtype, sizes),
        *layout_checks(namespace, dtype),
    ]
