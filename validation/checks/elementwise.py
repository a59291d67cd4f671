"""Accuracy of the elementwise kernels against mpmath, coordinate by coordinate.

Formulas without a transcendental function: 2 ulp of the largest term in either dtype (`validation.oracles.lines` and
the family state the terms), and 4 ulp for two fused lines, because the second starts from the rounded result of the
first. Formulas with one: in float64 the tolerance of the family's oracle, relative to the larger of the largest term
and 1 (a digamma has a zero); in float32, whose kernels compute in float64, 2 ulp of the largest term.

An inverse map without a closed form may be ill-conditioned, so its error is a backward error: to first order, the
smallest delta for which the result is the exact inverse of ``mu (1 + delta)``. It is at most 1e-13 in float64, and 2
units of relative spacing in float32, whose results are rounded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import mpmath
import numpy as np

from ..calls import Array, Call, invoke
from ..check import Check, check, failed
from ..kept import kept
from ..oracles import lines, lookup
from ..oracles.family import FactorisingOracle, Point, SlotTerms
from ..ulps import DIGITS, References, epsilon, exact, in_ulps, scaled

ULPS = 2.0
INVERSE_TOLERANCE = 1e-13
TRANSCENDENTAL = 2001
"""Points of a transcendental map, whose exact value takes up to a millisecond: a fault in 0.2% of the range is met with
probability 98%, and the seams of special functions have points of their own (`special`)."""
LINES_IN_FULL, FEW = "diagonal_gaussian", 40
"""The family in which the lines of a round are checked at all points, and how many they are in the others."""


def coordinates(name: str) -> FactorisingOracle:
    """Return the oracle of a factorising family."""
    found = lookup.family(name)
    assert isinstance(found, FactorisingOracle), f"{name}: expected a factorising family's oracle"
    return found


def results_match(call: Call, slots: tuple[Any, ...], expected: list[Any], dtype: str) -> str:
    """Return how a result differs from one array per slot of the inputs' dtype and shape, or an empty string."""
    if not isinstance(slots, tuple) or len(slots) != len(expected):
        return f"{call.function} returned {type(slots).__name__}, expected a tuple of {len(expected)} arrays"
    for slot, template in zip(slots, expected, strict=True):
        if slot.dtype != np.dtype(dtype) or slot.shape != template.shape:
            return f"{call.function} returned {slot.dtype}{slot.shape}, expected {dtype}{template.shape}"
    return ""


def line_references(
    formula: lines.Formula, arrays: Sequence[Array], scalars: Sequence[float], dtype: str
) -> tuple[References, int]:
    """Return the exact values of one result of a line in one slot, and the number of their terms."""
    columns = [exact(array.ravel().tolist()) for array in arrays]
    terms = [formula(point, scalars, dtype) for point in zip(*columns, strict=True)]
    return in_ulps(terms, dtype), max(len(term) for term in terms)


def map_references(
    formula: Callable[[Point], SlotTerms], arrays: Sequence[Array], dtype: str, relative: bool
) -> list[References]:
    """Return the exact values of a map by slot; errors in ulps of the largest term, or relative to it."""
    columns = [exact(array.tolist()) for array in arrays]
    slots = zip(*(formula(point) for point in zip(*columns, strict=True)), strict=True)
    return [scaled(slot, floor=1.0) if relative else in_ulps(slot, dtype) for slot in slots]


def linear_check(namespace: Any, family: str, dtype: str, call: Call) -> Check:
    """Check one ADMM line at one set of points."""
    slots = invoke(namespace, call)
    formulas = lines.LINES[call.function].formulas
    templates = next(argument for argument in call.args if isinstance(argument, tuple))
    complaint = results_match(call, slots, list(templates) * len(formulas), dtype)
    if complaint:
        return failed(f"{call.function}: {call.label}", "ulp", family, dtype, complaint)
    errors: list[float] = []
    sums = len(formulas)  # a sum of three terms rounds twice, the second time up to two binades above the largest term
    for number, got in enumerate(slots):
        result, slot = divmod(number, len(templates))
        arrays, key = call.slot(slot), (call.function, result, dtype, *call.scalars())
        expected, terms = kept(partial(line_references, formulas[result], arrays, call.scalars(), dtype), arrays, *key)
        errors += expected.errors(got)
        sums = max(sums, terms - 1)
    return check(
        f"{call.function}: {call.label}",
        "ulp",
        family,
        dtype,
        max(errors),
        ULPS * sums,
        "ulp of the largest term",
        errors,
    )


def map_check(namespace: Any, family: str, dtype: str, call: Call) -> Check:
    """Check one parameter map, or the natural gradient, at one set of points."""
    name = f"{call.function}: {call.label}"
    slots = invoke(namespace, call)
    oracle, arrays = coordinates(family), call.arrays()
    formula = replace(oracle, **call.kwargs).formula(call.function)
    transcendental = call.function in oracle.tolerances
    relative = transcendental and dtype == "float64"
    key = (family, call.function, *call.kwargs.items(), dtype)
    expected = kept(partial(map_references, formula, arrays, dtype, relative), arrays, *key)
    complaint = results_match(call, slots, [arrays[0]] * len(expected), dtype)
    group = "transcendental" if transcendental else "ulp"
    if complaint:
        return failed(name, group, family, dtype, complaint)
    errors = [error for got, slot in zip(slots, expected, strict=True) for error in slot.errors(got)]
    tolerance = oracle.tolerances[call.function] if relative else oracle.ulps.get(call.function, ULPS)
    detail = "relative to the largest term" if relative else "ulp of the largest term"
    return check(name, group, family, dtype, max(errors), tolerance, detail, errors)


def backward_error(family: FactorisingOracle, natural: Sequence[float], mu: Sequence[float]) -> float:
    """Return, to first order, the smallest relative change of mu that makes the result exact; infinite outside the
    domain."""
    inside = all(math.isfinite(x) and (x > 0 or d == "real") for x, d in zip(natural, family.domains, strict=True))
    if not inside:
        return math.inf
    image = [mpmath.fsum(terms) for terms in family.expectation_from_natural(exact(natural))]
    wanted = exact(mu)
    scales = family.inverse_scale(wanted)
    return float(max(abs(x - y) / s for x, y, s in zip(image, wanted, scales, strict=True)))


def inverse_check(namespace: Any, name: str, dtype: str, count: int = 1500) -> Check:
    """Check `natural_from_expectation` of a family that has no closed form of it."""
    family = coordinates(name)
    tolerance = INVERSE_TOLERANCE if dtype == "float64" else 2.0 * epsilon(dtype)
    with mpmath.workdps(DIGITS):
        mu = family.inverse_points(dtype, count)
        natural = namespace.natural_from_expectation(*mu, **family.fixed)
        rows = zip(*(slot.tolist() for slot in (*natural, *mu)), strict=True)
        errors = [backward_error(family, row[: len(natural)], row[len(natural) :]) for row in rows]
    label, detail = "natural_from_expectation: over its range", "relative change of the input"
    return check(label, "backward error", name, dtype, max(errors), tolerance, detail, errors)


def affordable(call: Call, oracle: FactorisingOracle) -> Call:
    """Return the call at no more than `TRANSCENDENTAL` points, spread evenly, where its exact values are expensive."""
    count = call.arrays()[0].size
    if call.function not in oracle.tolerances or count <= TRANSCENDENTAL:
        return call
    step = -(-count // TRANSCENDENTAL)
    return call.mapped(lambda array: np.ascontiguousarray(array[::step]))


def checks(namespace: Any, family: str, dtype: str, count: int = 400, map_count: int = 8001) -> list[Check]:
    """Check all elementwise kernels of one family and dtype: maps, which round more often, at more points; the lines
    of a round, which are the same kernels in every family, at all points in `LINES_IN_FULL` alone."""
    oracle = coordinates(family)
    of_lines = count if family == LINES_IN_FULL else min(count, FEW)
    with mpmath.workdps(DIGITS):
        found = [linear_check(namespace, family, dtype, call) for call in lines.calls(oracle, dtype, of_lines)]
        found += [
            map_check(namespace, family, dtype, affordable(call, oracle)) for call in oracle.calls(dtype, map_count)
        ]
    return found if oracle.has_inverse else [*found, inverse_check(namespace, family, dtype, min(map_count, 1500))]
